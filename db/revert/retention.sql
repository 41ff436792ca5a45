-- Revert logflume:retention from pg

BEGIN;

DROP FUNCTION expirable_logs;
DROP INDEX logs_empty, logs_archived;
DROP TABLE log_holds;

COMMIT;
