-- Revert logflume:imports from pg

BEGIN;

DROP TABLE imported_logs;

COMMIT;
