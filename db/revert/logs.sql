-- Revert logflume:logs from pg

BEGIN;

DROP VIEW log_rows;
DROP TABLE imported_logs, log_timings, log_attempts, logs;
DROP TYPE content_run;

COMMIT;
