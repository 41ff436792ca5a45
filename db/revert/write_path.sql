-- Revert logflume:write_path from pg

BEGIN;

DROP FUNCTION open_attempts, lock_archived_object, wait_for_writers, join_writers;
DROP TABLE large_dead_letters, maintenance;

COMMIT;
