-- Revert logflume:retention from pg

BEGIN;

DROP INDEX logs_empty;
DROP INDEX logs_archived;
DROP TABLE log_holds;
ALTER TABLE logs DROP COLUMN expired_at;

COMMIT;
