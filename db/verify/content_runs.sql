-- Verify logflume:content_runs on pg

SELECT content_runs FROM logs WHERE false;
SELECT * FROM merged_parts(0, 0);
SELECT 1 / count(*) FROM pg_proc
WHERE proname = 'open_attempts' AND prosrc LIKE '%What is%known of the content stays%'
    AND prosrc LIKE '%began_at OR k.aggregated_at IS NOT NULL%'
    AND prosrc LIKE '%DISTINCT FROM ''infinity''%';
