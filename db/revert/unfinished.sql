-- Revert logflume:unfinished from pg

BEGIN;

DROP INDEX logs_unfinished;
ALTER TABLE logs DROP COLUMN empty;

COMMIT;
