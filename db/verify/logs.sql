-- Verify logflume:logs on pg

BEGIN;

SELECT id, job_id, created_at, updated_at, generation, empty, late_parts, aggregated_at, content,
    content_bytes, content_sha256, content_attempt_id, content_runs, part_count, missing_parts,
    complete, left_out_bytes, parts_since, uploads, archiving, archived_at, archive_verified, archive_outdated,
    archive_outdated_at, archive_settles_at, step_count, purged_at, expired_at, removed_at, removed_by
FROM logs WHERE false;
SELECT id, log_id, uuid, began_at, closed_at, stale_until, stale_parts, stale_at,
    total_parts, total_bytes, total_sha256 FROM log_attempts WHERE false;
SELECT log_id, place, timer, event, fold, line, start_ns, finish_ns FROM log_timings WHERE false;
SELECT job_id, kind, seen, written_at, generation, note FROM imported_logs WHERE false;

DO $$
DECLARE
    job CONSTANT bigint := 9223372036854775807;
    log CONSTANT bigint := -1;  -- Fixtures have negative ids, to leave the sequences alone.
    found log_rows;
    refused text;
BEGIN
    ASSERT (SELECT indisvalid FROM pg_index WHERE indexrelid = 'log_attempts_stale'::regclass);
    INSERT INTO logs (id, job_id) VALUES (log, job);
    INSERT INTO log_attempts (id, log_id, uuid) VALUES (-1, log, 'a');
    INSERT INTO log_timings VALUES (log, 0, '', '', '', 0, 1, 1);
    INSERT INTO imported_logs (job_id, kind, seen) VALUES (job, 'empty', '');
    ASSERT (SELECT uploads = 0 AND NOT archive_outdated AND NOT empty FROM logs WHERE id = log);
    ASSERT (SELECT stale_parts = 0 FROM log_attempts WHERE log_id = log);
    ASSERT (SELECT generation = 0 FROM imported_logs WHERE job_id = job);

    FOREACH refused IN ARRAY ARRAY[
        'INSERT INTO logs (id, job_id) VALUES (-2, -1)',
        'INSERT INTO logs (id, job_id) VALUES (-2, $2)',
        'INSERT INTO logs (id, job_id) VALUES ($1, $2 - 1)',
        'INSERT INTO log_attempts (id, log_id, uuid) VALUES (-2, -2, ''a'')',
        'INSERT INTO log_attempts (id, log_id, uuid) VALUES (-2, $1, ''a'')',
        'INSERT INTO log_attempts (id, log_id, uuid) VALUES (-1, $1, ''b'')',
        'INSERT INTO log_timings VALUES (-2, 0, '''', '''', '''', 0, 1, 1)',
        'INSERT INTO log_timings VALUES ($1, 0, '''', '''', '''', 0, 1, 1)',
        'INSERT INTO log_timings VALUES ($1, 1, '''', '''', '''', 0, 1, 0)',
        'INSERT INTO imported_logs (job_id, kind, seen) VALUES ($2, ''empty'', '''')',
        'INSERT INTO imported_logs (job_id, kind, seen) VALUES ($2 - 1, ''other'', '''')'
    ] LOOP
        BEGIN
            EXECUTE refused USING log, job;
        EXCEPTION WHEN integrity_constraint_violation THEN
            CONTINUE;
        END;
        RAISE 'not refused: %', refused;
    END LOOP;

    UPDATE logs SET content_bytes = 1, content_sha256 = '\x00', part_count = 1, missing_parts = 0,
        complete = true, left_out_bytes = 1, content_runs = ARRAY[(0, 0, 1)::content_run]
    WHERE id = log;
    SELECT * INTO found FROM log_rows WHERE id = log;
    ASSERT (found.job_id, found.generation, found.late_parts) = (job, 0, false);
    ASSERT num_nulls(found.content_bytes, found.content_sha256, found.part_count, found.missing_parts,
        found.complete, found.left_out_bytes) = 6, 'log_rows shows superseded content';
    UPDATE logs SET aggregated_at = now() WHERE id = log;
    SELECT * INTO found FROM log_rows WHERE id = log;
    ASSERT (found.content_bytes, found.content_sha256, found.part_count, found.missing_parts,
        found.complete, found.left_out_bytes) = (1, '00', 1, 0, true, 1);
    ASSERT num_nulls(found.archived_at, found.step_count, found.purged_at, found.expired_at,
        found.removed_at, found.removed_by) = 6 AND NOT found.archiving AND NOT found.archive_verified
        AND found.created_at = now() AND found.updated_at = now();

    DELETE FROM log_attempts WHERE log_id = log;
    DELETE FROM logs WHERE id = log;
    ASSERT NOT EXISTS (SELECT FROM log_timings WHERE log_id = log), 'timings outlive their log';
    ASSERT (SELECT attstorage = 'e' FROM pg_attribute WHERE attrelid = 'logs'::regclass AND attname = 'content');
END
$$;

ROLLBACK;
