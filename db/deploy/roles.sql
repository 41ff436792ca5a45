-- Deploy logflume:roles to pg
--
-- A role for each process and one for operators, each with what it needs and no more; users are made
-- by the operator and put into one of them (docs/security.md). The schema's owner deploys, and does
-- nothing else: what only an owner may do, the worker does by the functions below.

BEGIN;

-- Roles belong to the cluster, so another database's deploy may make them at the same moment.
DO $$
DECLARE
    role name;
BEGIN
    FOREACH role IN ARRAY ARRAY['logflume_drain', 'logflume_worker', 'logflume_web', 'logflume_operator']
    LOOP
        IF to_regrole(role) IS NULL THEN
            BEGIN
                EXECUTE format('CREATE ROLE %I NOLOGIN', role);
            EXCEPTION
                WHEN duplicate_object OR unique_violation THEN NULL;
                WHEN insufficient_privilege THEN
                    RAISE EXCEPTION 'role % is missing and % may not make it: GRANT CREATEROLE or CREATE ROLE % NOLOGIN',
                        role, current_user, role USING ERRCODE = 'insufficient_privilege';
            END;
        END IF;
        EXECUTE format('GRANT CONNECT ON DATABASE %I TO %I', current_database(), role);
    END LOOP;
    -- Content that is restored goes through a temporary table.
    EXECUTE format('GRANT TEMPORARY ON DATABASE %I TO logflume_worker', current_database());
END
$$;

-- At the start everyone looks whether the schema is the one it knows.
GRANT USAGE ON SCHEMA public, sqitch TO logflume_drain, logflume_worker, logflume_web, logflume_operator;
GRANT SELECT ON sqitch.changes TO logflume_drain, logflume_worker, logflume_web, logflume_operator;
GRANT SELECT ON maintenance, watched_logs TO logflume_drain, logflume_worker, logflume_web, logflume_operator;

-- The drain writes parts and reads none, nor any content.
GRANT INSERT (job_id),
    SELECT (id, job_id, content_attempt_id, aggregated_at, late_parts, empty, expired_at),
    UPDATE (aggregated_at, archiving, archived_at, archive_verified, purged_at, updated_at, late_parts, empty,
        expired_at)
    ON logs TO logflume_drain;
GRANT INSERT (log_id, uuid, began_at), SELECT, UPDATE (began_at, stale_parts) ON log_attempts TO logflume_drain;
GRANT INSERT ON log_parts TO logflume_drain;
GRANT USAGE ON SEQUENCE log_parts_id_seq TO logflume_drain;

-- The worker makes content of parts, and deletes; it writes no part, and changes of one its time alone.
GRANT SELECT, UPDATE, DELETE ON logs, log_attempts TO logflume_worker;
GRANT SELECT, UPDATE (created_at), DELETE ON log_parts TO logflume_worker;
GRANT SELECT, INSERT, DELETE ON log_timings TO logflume_worker;
GRANT SELECT ON log_holds TO logflume_worker;

-- The web reads, writes whole logs, and notes who watches one.
GRANT SELECT, INSERT (job_id), UPDATE ON logs TO logflume_web;
GRANT SELECT, INSERT (log_id, uuid), UPDATE (began_at, closed_at) ON log_attempts TO logflume_web;
GRANT SELECT, INSERT, DELETE ON log_parts TO logflume_web;
GRANT USAGE, SELECT ON SEQUENCE log_parts_id_seq TO logflume_web;
GRANT SELECT, DELETE ON log_timings TO logflume_web;
GRANT SELECT ON log_holds TO logflume_web;
GRANT INSERT, UPDATE, DELETE ON watched_logs TO logflume_web;

-- Operators switch maintenance, hold logs, import them, reconcile them with the archive, and look.
GRANT SELECT, INSERT, UPDATE ON logs, log_attempts TO logflume_operator;
GRANT SELECT, INSERT, DELETE ON log_parts TO logflume_operator;
GRANT SELECT, INSERT, DELETE ON log_timings TO logflume_operator;
GRANT SELECT, INSERT, UPDATE ON imported_logs TO logflume_operator;
GRANT SELECT, INSERT, UPDATE, DELETE ON log_holds TO logflume_operator;
GRANT INSERT, UPDATE, DELETE ON maintenance TO logflume_operator;
GRANT USAGE, SELECT ON SEQUENCE log_parts_id_seq, log_attempts_id_seq TO logflume_operator;
GRANT USAGE, SELECT, UPDATE ON SEQUENCE logs_id_seq TO logflume_operator;

-- What follows runs as the schema's owner: names are looked up where nobody else makes any.
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
    'Lets the worker read and lock every partition by its own name, which none of the others needs.';

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
    'Tells pg_partman how much time a partition holds that it makes, and what that gives for a name.';

CREATE FUNCTION make_partition(begin_at timestamptz) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    made boolean;
BEGIN
    IF (SELECT split_part(extversion, '.', 1)::integer < 5 FROM pg_extension WHERE extname = 'pg_partman') THEN
        made := partman.create_partition_time('public.log_parts', ARRAY[begin_at], false);
    ELSE
        made := partman.create_partition_time('public.log_parts', ARRAY[begin_at]);
    END IF;
    PERFORM open_partitions();
    RETURN made;
END
$$;

COMMENT ON FUNCTION make_partition IS
    'Makes the partition of parts that begins then; false where a table has its name that is none.';

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
    'Drops a partition of parts, but not the default one; whether it may go, the caller has asked.';

CREATE FUNCTION analyze_parts() RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    ANALYZE log_parts;
END
$$;

COMMENT ON FUNCTION analyze_parts IS
    'Gathers the planner''s statistics of all parts, which autovacuum does for single partitions only.';

REVOKE EXECUTE ON FUNCTION open_partitions, configure_partitions, make_partition, drop_partition, analyze_parts
    FROM PUBLIC;
GRANT EXECUTE ON FUNCTION configure_partitions, make_partition, drop_partition, analyze_parts TO logflume_worker;

SELECT open_partitions();

COMMIT;
