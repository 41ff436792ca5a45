-- Revert logflume:uploads from pg

BEGIN;

ALTER TABLE logs DROP COLUMN uploads;

COMMIT;
