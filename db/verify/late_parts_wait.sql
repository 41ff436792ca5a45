-- Verify logflume:late_parts_wait on pg

SELECT 1 / count(*) FROM pg_proc
WHERE proname = 'open_attempts' AND prosrc LIKE '%began_at OR k.aggregated_at IS NOT NULL%'
    AND prosrc LIKE '%DISTINCT FROM ''infinity''%';
