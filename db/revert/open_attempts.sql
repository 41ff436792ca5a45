-- Revert logflume:open_attempts from pg

BEGIN;

DROP FUNCTION open_attempts;

COMMIT;
