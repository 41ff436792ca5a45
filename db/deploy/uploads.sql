-- Deploy logflume:uploads to pg

BEGIN;

ALTER TABLE logs ADD COLUMN uploads integer NOT NULL DEFAULT 0;

COMMENT ON COLUMN logs.uploads IS
    'Uploads of the log that were begun; never set back. An archived object carries its own number: '
    'one above this came from a later state of the database than this one.';

COMMIT;
