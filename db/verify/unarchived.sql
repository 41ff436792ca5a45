-- Verify logflume:unarchived on pg

SELECT 1 / count(*) FROM pg_index WHERE indexrelid = 'logs_unarchived'::regclass AND indisvalid;
