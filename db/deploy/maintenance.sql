-- Deploy logflume:maintenance to pg

BEGIN;

CREATE TABLE maintenance (
    is_on boolean PRIMARY KEY DEFAULT true CHECK (is_on),
    until timestamptz NOT NULL
);

COMMENT ON TABLE maintenance IS
    'The switch of operators: one row, or none. Until then nobody reads or writes parts.';

COMMIT;
