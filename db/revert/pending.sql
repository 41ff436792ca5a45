-- Revert logflume:pending from pg

BEGIN;

DROP VIEW backfill_logs, bare_logs;
DROP FUNCTION pending_logs;
DROP VIEW pending_rows;
DROP INDEX logs_unarchived, logs_outdated, logs_pending;

COMMIT;
