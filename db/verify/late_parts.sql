-- Verify logflume:late_parts on pg

SELECT 1 / count(*) FROM pg_proc WHERE proname = 'open_attempts' AND prosrc LIKE '%late_parts%';
