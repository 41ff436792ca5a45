-- Verify logflume:pending on pg

BEGIN;

DO $$
DECLARE
    job CONSTANT bigint := 9223372036854775807;
    log CONSTANT bigint := -1;
BEGIN
    ASSERT (SELECT count(*) FROM pg_index
        WHERE indexrelid IN ('logs_pending'::regclass, 'logs_outdated'::regclass, 'logs_unarchived'::regclass)
            AND indisvalid) = 3;
    INSERT INTO logs (id, job_id, updated_at, archive_outdated)
    VALUES (log, job, now() - interval '1 hour', true);
    ASSERT NOT EXISTS (SELECT FROM bare_logs WHERE id = log);
    ASSERT (SELECT job_id FROM pending_rows WHERE id = log) = job;
    ASSERT (SELECT (job_id, outdated, ended, heard_at, archived_at IS NULL, bare)
            = (job, true, false, now() - interval '1 hour', true, false)
        FROM pending_logs(log - 1, 60, 60) WHERE id = log);
    INSERT INTO log_parts (id, log_id, attempt_id, created_at, number, final, content)
    VALUES (-1, log, 1, now(), 0, true, '');
    ASSERT NOT EXISTS (SELECT FROM pending_logs(log - 1, 60, 60) WHERE id = log);
    ASSERT (SELECT (job_id, heard_at, archived_at IS NULL, bare, aggregated, ended, gone)
            = (job, now(), true, false, false, true, false) AND since > 0
        FROM backfill_logs WHERE id = log);
    DELETE FROM log_parts WHERE log_id = log;
    UPDATE logs SET archive_outdated = false WHERE id = log;
    ASSERT (SELECT job_id FROM bare_logs WHERE id = log) = job;
    ASSERT (SELECT (outdated, bare) = (false, true) FROM pending_logs(log - 1, 60, 60) WHERE id = log);
    UPDATE logs SET archive_settles_at = now() + interval '1 second' WHERE id = log;
    ASSERT NOT EXISTS (SELECT FROM pending_logs(log - 1, 60, 60) WHERE id = log);
    UPDATE logs SET archive_settles_at = now() WHERE id = log;
    ASSERT (SELECT (outdated, bare) = (true, false) FROM pending_logs(log - 1, 60, 60) WHERE id = log);
END
$$;

ROLLBACK;
