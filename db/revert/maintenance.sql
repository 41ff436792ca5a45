-- Revert logflume:maintenance from pg

BEGIN;

DROP TABLE maintenance;

COMMIT;
