-- Verify logflume:retention on pg

BEGIN;

SELECT log_id, held_at, reason FROM log_holds WHERE false;

DO $$
DECLARE
    job CONSTANT bigint := 9223372036854775807;
    old CONSTANT timestamptz := now() - interval '9 days';
    log CONSTANT bigint := -1;
    refused text;
BEGIN
    ASSERT (SELECT count(*) FROM pg_index
        WHERE indexrelid IN ('logs_archived'::regclass, 'logs_empty'::regclass) AND indisvalid) = 2;
    INSERT INTO logs (id, job_id, archived_at, archive_verified, purged_at, content_bytes, content_sha256)
    VALUES (log, job, old, true, old, 2, '\x00');
    INSERT INTO log_holds (log_id, reason) VALUES (log, '');
    FOREACH refused IN ARRAY ARRAY[
        'INSERT INTO log_holds (log_id, reason) VALUES ($1, '''')',
        'INSERT INTO log_holds (log_id, reason) VALUES (-2, '''')'
    ] LOOP
        BEGIN
            EXECUTE refused USING log;
        EXCEPTION WHEN integrity_constraint_violation THEN
            CONTINUE;
        END;
        RAISE 'not refused: %', refused;
    END LOOP;
    ASSERT (SELECT (job_id, at, bytes, sha256, matches, held) = (job, old, 2, '00', true, true)
        FROM expirable_logs('done', 8, 1) WHERE id = log);
    ASSERT (SELECT NOT matches FROM expirable_logs('removed', 8, 1) WHERE id = log);
    ASSERT NOT EXISTS (SELECT FROM expirable_logs('empty', 8, 1) WHERE id = log);
END
$$;

ROLLBACK;
