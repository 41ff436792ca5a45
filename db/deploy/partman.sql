-- Deploy logflume:partman to pg
-- pg_partman, in a schema of its own.

BEGIN;

CREATE SCHEMA partman;
CREATE EXTENSION pg_partman SCHEMA partman;

COMMIT;
