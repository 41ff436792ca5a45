-- Revert logflume:cut_logs from pg

BEGIN;

ALTER TABLE logs DROP COLUMN left_out_bytes;

COMMIT;
