-- Revert logflume:watching from pg

BEGIN;

DROP FUNCTION announce_parts;
DROP TABLE watched_logs;
ALTER TABLE logs DROP COLUMN generation, DROP COLUMN late_parts;

COMMIT;
