-- Revert logflume:partman from pg

BEGIN;

DROP EXTENSION pg_partman;
DROP SCHEMA partman CASCADE;

COMMIT;
