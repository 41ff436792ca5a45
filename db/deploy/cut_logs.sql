-- Deploy logflume:cut_logs to pg

BEGIN;

ALTER TABLE logs ADD COLUMN left_out_bytes bigint;

COMMENT ON COLUMN logs.left_out_bytes IS
    'Bytes of the log that its content leaves out, because it would be too long with them.';

COMMIT;
