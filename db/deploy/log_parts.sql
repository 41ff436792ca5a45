-- Deploy logflume:log_parts to pg
-- Parts, partitioned by receive time, and what the worker needs to maintain the partitions.

BEGIN;

-- The two numbers that are not positions. The planner replaces these calls by the constants.
CREATE FUNCTION number_whole() RETURNS integer LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN -1;
CREATE FUNCTION number_last() RETURNS integer LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN 2147483647;

COMMENT ON FUNCTION number_whole IS 'The number of content written whole: before every other part.';
COMMENT ON FUNCTION number_last IS 'The number of `last` parts: after every numbered part.';

CREATE SEQUENCE log_parts_id_seq;

-- The primary key is also the order in which the content rule reads a log: one index serves both.
-- created_at is only in it because it determines the partition.
CREATE TABLE log_parts (
    id bigint NOT NULL DEFAULT nextval('log_parts_id_seq'),
    log_id bigint NOT NULL,
    attempt_id bigint NOT NULL,
    created_at timestamptz NOT NULL,
    number integer NOT NULL CHECK (number >= number_whole()),
    final boolean NOT NULL,
    content bytea NOT NULL,
    PRIMARY KEY (log_id, attempt_id, number, id, created_at)
) PARTITION BY RANGE (created_at);

ALTER SEQUENCE log_parts_id_seq OWNED BY log_parts.id;
ALTER TABLE log_parts ALTER COLUMN content SET STORAGE EXTERNAL;

COMMENT ON TABLE log_parts IS 'Parts as received: their content is never updated.';
COMMENT ON COLUMN log_parts.id IS
    'The order in which Postgres received the parts, whatever the clocks of the drains say.';
COMMENT ON COLUMN log_parts.created_at IS 'When the part was received; only determines its partition.';
COMMENT ON COLUMN log_parts.number IS
    'Position in the log, from 0; number_last() for `last` parts; number_whole() for content written whole.';

CREATE FUNCTION last_part(log bigint) RETURNS TABLE (created_at timestamptz, final boolean)
LANGUAGE sql STABLE AS $$
    SELECT p.created_at, p.final FROM log_parts p WHERE p.log_id = log
    ORDER BY p.attempt_id DESC, p.number DESC, p.id DESC LIMIT 1
$$;

COMMENT ON FUNCTION last_part IS
    'The last part of a log by its key, which is nearly always the newest: one index lookup.';

-- pg_partman creates partitions and never drops one (no retention is set): a partition may only be
-- dropped once every log with parts in it is archived and verified.
DO $$
BEGIN
    IF (SELECT split_part(extversion, '.', 1)::integer FROM pg_extension WHERE extname = 'pg_partman') >= 5 THEN
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

CREATE VIEW log_partitions AS
SELECT c.oid::regclass::text AS name,
    substring(b.bound FROM 'FROM \(''([^'']+)''\)')::timestamptz AS begin,
    substring(b.bound FROM 'TO \(''([^'']+)''\)')::timestamptz AS end
FROM pg_inherits i
JOIN pg_class c ON c.oid = i.inhrelid,
LATERAL (SELECT pg_get_expr(c.relpartbound, c.oid) AS bound) b
WHERE i.inhparent = 'log_parts'::regclass;

COMMENT ON VIEW log_partitions IS
    'The partitions of log_parts with their bounds, which are null for the default partition.';

CREATE FUNCTION partition_has_parts(name text, since timestamptz, before timestamptz) RETURNS boolean
LANGUAGE plpgsql STABLE AS $$
DECLARE
    has_parts boolean;
BEGIN
    EXECUTE format('SELECT EXISTS (SELECT FROM %s WHERE created_at >= $1 AND created_at < $2)', name::regclass)
    INTO has_parts USING since, before;
    RETURN has_parts;
END
$$;

COMMENT ON FUNCTION partition_has_parts IS 'Whether a partition holds parts received in this period.';

CREATE FUNCTION count_partition_parts(name text, most bigint) RETURNS bigint
LANGUAGE plpgsql STABLE AS $$
DECLARE
    parts bigint;
BEGIN
    EXECUTE format('SELECT count(*) FROM (SELECT FROM %s LIMIT $1) p', name::regclass) INTO parts USING most;
    RETURN parts;
END
$$;

COMMENT ON FUNCTION count_partition_parts IS 'Counts the parts in a partition, up to a limit.';

CREATE FUNCTION partition_logs(name text) RETURNS SETOF bigint
LANGUAGE plpgsql STABLE AS $$
BEGIN
    -- Steps from one log to the next by the index, however many parts each has.
    RETURN QUERY EXECUTE format(
        'WITH RECURSIVE stored (log_id) AS (
            (SELECT p.log_id FROM %1$s p ORDER BY p.log_id LIMIT 1)
            UNION ALL
            SELECT (SELECT p.log_id FROM %1$s p WHERE p.log_id > s.log_id ORDER BY p.log_id LIMIT 1)
            FROM stored s WHERE s.log_id IS NOT NULL
        )
        SELECT log_id FROM stored WHERE log_id IS NOT NULL ORDER BY log_id', name::regclass);
END
$$;

COMMENT ON FUNCTION partition_logs IS 'Lists the logs with parts in a partition, by their own ids.';

CREATE FUNCTION stray_logs(name text, before timestamptz) RETURNS TABLE (log_id bigint, ahead boolean)
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN QUERY EXECUTE format(
        'SELECT log_id, bool_or(created_at > now()) FROM %s
        WHERE created_at < $1 OR created_at > now() GROUP BY log_id ORDER BY log_id', name::regclass)
    USING before;
END
$$;

COMMENT ON FUNCTION stray_logs IS
    'Lists the logs with parts in a partition that were received before a time, or ahead of now.';

CREATE FUNCTION freeze_partition(name text) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('LOCK TABLE %s IN SHARE MODE', name::regclass);
END
$$;

COMMENT ON FUNCTION freeze_partition IS
    'Blocks writers of a partition, but not readers, until the transaction ends.';

CREATE FUNCTION lock_partition(name text, no_wait boolean) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', name::regclass)
        || CASE WHEN no_wait THEN ' NOWAIT' ELSE '' END;
END
$$;

COMMENT ON FUNCTION lock_partition IS 'Blocks every use of a partition until the transaction ends.';

-- The following functions run as the schema's owner. search_path is fixed to schemas in which only
-- the owner may create objects.
CREATE FUNCTION open_partitions() RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    partition regclass;
BEGIN
    FOR partition IN
        SELECT inhrelid FROM pg_inherits
        WHERE inhparent = 'log_parts'::regclass
            AND NOT has_table_privilege('logflume_worker', inhrelid, 'DELETE')
    LOOP
        EXECUTE format('GRANT SELECT, DELETE ON %s TO logflume_worker', partition);
    END LOOP;
END
$$;

COMMENT ON FUNCTION open_partitions IS
    'Lets the worker read and lock every partition by its own name; no other role needs that.';

CREATE FUNCTION configure_partitions(step interval, ahead integer) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
    -- Its own maintenance would wait for locks without limit, so it is off.
    UPDATE partman.part_config c
    SET partition_interval = step::text,
        datetime_string = CASE
            WHEN split_part(e.extversion, '.', 1)::integer < 5 THEN 'YYYY_MM_DD' || CASE WHEN step < '1 day' THEN '_HH24MI' ELSE '' END
            ELSE 'YYYYMMDD' || CASE WHEN step < '1 day' THEN '_HH24MISS' ELSE '' END
        END,
        premake = ahead, automatic_maintenance = 'off', infinite_time_partitions = true, retention = NULL
    FROM pg_extension e
    WHERE c.parent_table = 'public.log_parts' AND e.extname = 'pg_partman'
$$;

COMMENT ON FUNCTION configure_partitions IS
    'Sets the period of the partitions that pg_partman creates next, and with it their names.';

CREATE FUNCTION make_partition(begin_at timestamptz) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    created boolean;
BEGIN
    IF (SELECT split_part(extversion, '.', 1)::integer < 5 FROM pg_extension WHERE extname = 'pg_partman') THEN
        created := partman.create_partition_time('public.log_parts', ARRAY[begin_at], false);
    ELSE
        created := partman.create_partition_time('public.log_parts', ARRAY[begin_at]);
    END IF;
    PERFORM open_partitions();
    RETURN created;
END
$$;

COMMENT ON FUNCTION make_partition IS
    'Creates the partition that begins then; false if another table already has its name.';

CREATE FUNCTION drop_partition(name text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    partition regclass;
BEGIN
    SELECT c.oid INTO STRICT partition
    FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
    WHERE i.inhparent = 'log_parts'::regclass AND c.oid = name::regclass
        AND pg_get_expr(c.relpartbound, c.oid) <> 'DEFAULT';
    EXECUTE format('DROP TABLE %s', partition);
END
$$;

COMMENT ON FUNCTION drop_partition IS
    'Drops a partition other than the default one. The caller checks first that its logs are archived.';

CREATE FUNCTION analyze_parts() RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    ANALYZE log_parts;
END
$$;

COMMENT ON FUNCTION analyze_parts IS
    'Gathers the planner''s statistics of all parts; autovacuum does so for single partitions only.';

REVOKE EXECUTE ON FUNCTION open_partitions, configure_partitions, make_partition, drop_partition, analyze_parts
    FROM PUBLIC;

COMMIT;
