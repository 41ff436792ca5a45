-- Revert logflume:log_timings from pg

BEGIN;

DROP TABLE log_timings;
ALTER TABLE logs DROP COLUMN step_count;

COMMIT;
