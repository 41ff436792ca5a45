-- Deploy logflume:log_parts to pg

BEGIN;

CREATE SEQUENCE log_parts_id_seq;

-- The primary key is also the order in which the content rule reads a log: one index serves both.
CREATE TABLE log_parts (
    id bigint NOT NULL DEFAULT nextval('log_parts_id_seq'),
    log_id bigint NOT NULL,
    attempt_id bigint NOT NULL,
    created_at timestamptz NOT NULL,
    number integer NOT NULL CHECK (number >= -1),
    final boolean NOT NULL,
    content bytea NOT NULL,
    PRIMARY KEY (log_id, attempt_id, number, created_at, id)
) PARTITION BY RANGE (created_at);

ALTER SEQUENCE log_parts_id_seq OWNED BY log_parts.id;
ALTER TABLE log_parts ALTER COLUMN content SET STORAGE EXTERNAL;

COMMENT ON TABLE log_parts IS 'Parts as they came: written by COPY, never updated.';
COMMENT ON COLUMN log_parts.created_at IS 'When the part was received; decides its partition.';
COMMENT ON COLUMN log_parts.number IS
    '0 and up; 2147483647: after every numbered part; -1: content written whole.';

-- Nothing is dropped by pg_partman alone: no retention is set, because a partition may only go
-- once every log with parts in it is archived and verified.
DO $$
BEGIN
    IF (SELECT split_part(extversion, '.', 1)::int FROM pg_extension WHERE extname = 'pg_partman') >= 5
    THEN
        PERFORM partman.create_parent(
            p_parent_table := 'public.log_parts', p_control := 'created_at',
            p_interval := '1 day', p_premake := 7, p_start_partition := current_date::text);
    ELSE
        PERFORM partman.create_parent(
            p_parent_table := 'public.log_parts', p_control := 'created_at',
            p_type := 'native', p_interval := '1 day', p_premake := 7, p_start_partition := current_date::text);
    END IF;
END
$$;

UPDATE partman.part_config SET infinite_time_partitions = true
WHERE parent_table = 'public.log_parts';

COMMIT;
