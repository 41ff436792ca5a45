-- Deploy logflume:partman to pg

BEGIN;

CREATE SCHEMA partman;
CREATE EXTENSION pg_partman SCHEMA partman;

COMMIT;
