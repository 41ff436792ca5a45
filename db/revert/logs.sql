-- Revert logflume:logs from pg

BEGIN;

DROP TABLE log_attempts;
DROP TABLE logs;

COMMIT;
