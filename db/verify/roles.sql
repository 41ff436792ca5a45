-- Verify logflume:roles on pg

BEGIN;

DO $$
DECLARE
    missing text;
BEGIN
    SELECT string_agg(format('%s on %s for %s', g.privilege, g.object, r.role), '; ') INTO missing
    FROM (VALUES
        ('drain,worker,web,operator', 'SELECT', 'sqitch.changes,maintenance,watched_logs'),
        ('drain', 'SELECT', 'log_attempts'),
        ('drain', 'INSERT', 'log_parts,large_dead_letters'),
        ('worker', 'SELECT,UPDATE,DELETE', 'logs,log_attempts'),
        ('worker', 'SELECT,DELETE', 'log_parts'),
        ('worker', 'SELECT,INSERT,DELETE', 'log_timings'),
        ('worker', 'SELECT', 'log_holds'),
        ('web', 'SELECT,UPDATE', 'logs'),
        ('web', 'SELECT', 'log_attempts,log_holds'),
        ('web', 'SELECT,INSERT,DELETE', 'log_parts'),
        ('web', 'SELECT,DELETE', 'log_timings'),
        ('web', 'INSERT,UPDATE,DELETE', 'watched_logs'),
        ('operator', 'SELECT,INSERT,UPDATE', 'logs,log_attempts,imported_logs'),
        ('operator', 'SELECT,INSERT,DELETE', 'log_parts,log_timings'),
        ('operator', 'SELECT,INSERT,UPDATE,DELETE', 'log_holds'),
        ('operator', 'INSERT,UPDATE,DELETE', 'maintenance'),
        ('operator', 'SELECT,DELETE', 'large_dead_letters'),
        ('worker,web,operator', 'SELECT', 'log_rows'),
        ('worker,operator', 'SELECT', 'pending_rows,bare_logs,backfill_logs,log_partitions')
    ) v (roles, privileges, objects),
    string_to_table(v.roles, ',') r (role), string_to_table(v.objects, ',') o (object),
    LATERAL (
        SELECT p.privilege, o.object FROM string_to_table(v.privileges, ',') p (privilege)
    ) g
    WHERE NOT has_table_privilege('logflume_' || r.role, g.object, g.privilege);
    ASSERT missing IS NULL, 'missing: ' || missing;

    SELECT string_agg(format('%s of %s on %s for %s', v.privilege, c.name, v.object, v.role), '; ') INTO missing
    FROM (VALUES
        ('drain', 'INSERT', 'logs', 'job_id'),
        ('drain', 'SELECT', 'logs', 'id,job_id,content_attempt_id,aggregated_at,late_parts,empty,expired_at,removed_at'),
        ('drain', 'UPDATE', 'logs', 'aggregated_at,archiving,archived_at,archive_verified,purged_at,'
            'updated_at,late_parts,empty,expired_at'),
        ('drain', 'INSERT', 'log_attempts', 'log_id,uuid,began_at'),
        ('drain', 'UPDATE', 'log_attempts', 'began_at,closed_at,stale_until,stale_parts,stale_at,total_parts,total_bytes,total_sha256'),
        ('worker', 'UPDATE', 'log_parts', 'created_at'),
        ('web', 'INSERT', 'logs', 'job_id'),
        ('web', 'INSERT', 'log_attempts', 'log_id,uuid'),
        ('web', 'UPDATE', 'log_attempts', 'began_at,closed_at,total_parts,total_bytes,total_sha256')
    ) v (role, privilege, object, columns), string_to_table(v.columns, ',') c (name)
    WHERE NOT has_column_privilege('logflume_' || v.role, v.object, c.name, v.privilege);
    ASSERT missing IS NULL, 'missing: ' || missing;

    SELECT string_agg(format('%s on %s for %s', p.privilege, v.sequence, v.role), '; ') INTO missing
    FROM (VALUES
        ('drain', 'USAGE', 'log_parts_id_seq'),
        ('web', 'USAGE,SELECT', 'log_parts_id_seq'),
        ('operator', 'USAGE,SELECT', 'log_parts_id_seq'),
        ('operator', 'USAGE,SELECT', 'log_attempts_id_seq'),
        ('operator', 'USAGE,SELECT,UPDATE', 'logs_id_seq')
    ) v (role, privileges, sequence), string_to_table(v.privileges, ',') p (privilege)
    WHERE NOT has_sequence_privilege('logflume_' || v.role, v.sequence, p.privilege);
    ASSERT missing IS NULL, 'missing: ' || missing;

    ASSERT (SELECT bool_and(has_schema_privilege(r.role, 'public', 'USAGE')
            AND has_schema_privilege(r.role, 'sqitch', 'USAGE')
            AND has_database_privilege(r.role, current_database(), 'CONNECT'))
        FROM (VALUES ('logflume_drain'), ('logflume_worker'), ('logflume_web'), ('logflume_operator')) r (role));
    ASSERT has_database_privilege('logflume_worker', current_database(), 'TEMPORARY');

    -- Functions that run as the owner: the worker's alone, or the owner's.
    ASSERT (SELECT count(*) = 5 AND bool_and(p.prosecdef AND NOT has_function_privilege('logflume_web', p.oid, 'EXECUTE')
            AND has_function_privilege('logflume_worker', p.oid, 'EXECUTE') = (p.proname <> 'open_partitions'))
        FROM pg_proc p WHERE p.oid IN ('open_partitions'::regproc, 'configure_partitions'::regproc,
            'make_partition'::regproc, 'drop_partition'::regproc, 'analyze_parts'::regproc));
    ASSERT NOT has_any_column_privilege('logflume_drain', 'log_parts', 'SELECT,UPDATE')
        AND NOT has_column_privilege('logflume_drain', 'logs', 'content', 'SELECT,UPDATE')
        AND NOT has_table_privilege('logflume_worker', 'log_parts', 'INSERT,TRUNCATE')
        AND NOT has_table_privilege('logflume_web', 'logs', 'DELETE');

    ASSERT (SELECT bool_and(has_table_privilege('logflume_worker', i.inhrelid, 'SELECT')
            AND has_table_privilege('logflume_worker', i.inhrelid, 'DELETE'))
        FROM pg_inherits i WHERE i.inhparent = 'log_parts'::regclass), 'a partition is closed to the worker';
    REVOKE SELECT, DELETE ON log_parts_default FROM logflume_worker;
    PERFORM open_partitions();
    ASSERT has_table_privilege('logflume_worker', 'log_parts_default', 'DELETE');
    -- No partition is created here, which would block writers. pg_partman refuses to create the one of
    -- the present if the interval was changed since that was created.
    BEGIN
        ASSERT NOT make_partition((SELECT "begin" FROM log_partitions WHERE "begin" <= now() AND now() < "end"));
    EXCEPTION WHEN raise_exception THEN NULL;
    END;
END
$$;

ROLLBACK;
