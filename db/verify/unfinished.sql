-- Verify logflume:unfinished on pg

SELECT empty FROM logs WHERE false;
SELECT 1 / count(*) FROM pg_index WHERE indexrelid = 'logs_unfinished'::regclass AND indisvalid;
