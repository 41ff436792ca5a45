-- Verify logflume:log_parts on pg

BEGIN;

SELECT id, log_id, attempt_id, created_at, number, final, content FROM log_parts WHERE false;

-- Stands in for a partition.
CREATE TEMP TABLE partition_fixture (LIKE log_parts INCLUDING ALL) ON COMMIT DROP;

DO $$
DECLARE
    log CONSTANT bigint := -1;
    refused text;
    config record;
BEGIN
    ASSERT (number_whole(), number_last()) = (-1, 2147483647);
    INSERT INTO log_parts (id, log_id, attempt_id, created_at, number, final, content)
    VALUES (-1, log, 1, now(), 0, false, 'x'), (-2, log, 1, now(), number_last(), true, 'y'),
        (-3, log, 1, '2000-01-01', number_whole(), false, 'z');
    ASSERT (SELECT (created_at, final) = (now(), true) FROM last_part(log));
    FOREACH refused IN ARRAY ARRAY[
        'INSERT INTO log_parts (id, log_id, attempt_id, created_at, number, final, content)
            VALUES (-4, $1, 1, now(), -2, false, '''')',
        'INSERT INTO log_parts SELECT * FROM log_parts WHERE log_id = $1'
    ] LOOP
        BEGIN
            EXECUTE refused USING log;
        EXCEPTION WHEN integrity_constraint_violation THEN
            CONTINUE;
        END;
        RAISE 'not refused: %', refused;
    END LOOP;
    ASSERT (SELECT attstorage = 'e' FROM pg_attribute
        WHERE attrelid = 'log_parts'::regclass AND attname = 'content');
    ASSERT (SELECT atthasdef FROM pg_attribute WHERE attrelid = 'log_parts'::regclass AND attname = 'id')
        AND pg_get_serial_sequence('log_parts', 'id') = 'public.log_parts_id_seq';

    -- Now and the time ahead have partitions, and there is a default one.
    ASSERT (SELECT count(*) FROM log_partitions WHERE "begin" <= now() AND now() < "end") = 1;
    ASSERT (SELECT count(*) FROM log_partitions WHERE "begin" > now()) > 0;
    ASSERT (SELECT count(*) FROM log_partitions WHERE "begin" IS NULL AND name = 'log_parts_default') = 1;
    SELECT partition_interval::interval AS step, premake, infinite_time_partitions, retention, control,
        template_table INTO config
    FROM partman.part_config WHERE parent_table = 'public.log_parts';
    ASSERT (config.control, config.infinite_time_partitions, config.retention IS NULL, config.premake > 0)
        = ('created_at', true, true, true);
    BEGIN
        PERFORM drop_partition('log_parts_default');
        RAISE 'drop_partition accepts the default partition';
    EXCEPTION WHEN no_data_found THEN NULL;
    END;
    UPDATE partman.part_config SET retention = '1 hour' WHERE parent_table = 'public.log_parts';
    PERFORM configure_partitions('1 hour', 5);
    ASSERT (SELECT (partition_interval::interval, premake, retention IS NULL) = ('1 hour', 5, true)
        FROM partman.part_config WHERE parent_table = 'public.log_parts');

    INSERT INTO partition_fixture SELECT * FROM log_parts WHERE log_id = log;
    ASSERT partition_has_parts('partition_fixture', '2000-01-01', '2000-01-02');
    ASSERT NOT partition_has_parts('partition_fixture', '2000-01-02', '2000-01-03');
    ASSERT (count_partition_parts('partition_fixture', 2), count_partition_parts('partition_fixture', 9)) = (2, 3);
    ASSERT ARRAY(SELECT partition_logs('partition_fixture')) = ARRAY[log];
    ASSERT (SELECT (count(*), min(log_id), bool_or(ahead)) = (1, log, false)
        FROM stray_logs('partition_fixture', '2000-01-02'));

    -- Locks of the template table of pg_partman, which nothing uses except to create a partition.
    PERFORM freeze_partition(config.template_table);
    PERFORM lock_partition(config.template_table, false);
    PERFORM analyze_parts();
    ASSERT (SELECT array_agg(DISTINCT mode) FROM pg_locks
        WHERE pid = pg_backend_pid() AND relation = config.template_table::regclass)
        @> '{ShareLock,AccessExclusiveLock}';
    ASSERT EXISTS (SELECT FROM pg_locks WHERE pid = pg_backend_pid()
        AND relation = 'log_parts'::regclass AND mode = 'ShareUpdateExclusiveLock'), 'nothing was analyzed';
END
$$;

ROLLBACK;
