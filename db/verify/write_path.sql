-- Verify logflume:write_path on pg

BEGIN;

DO $$
DECLARE
    job CONSTANT bigint := 9223372036854775807;
    opened record;
    letter record;
BEGIN
    INSERT INTO maintenance (until) VALUES (now() + interval '1 hour')
    ON CONFLICT (is_on) DO UPDATE SET until = excluded.until;
    BEGIN
        INSERT INTO maintenance (is_on, until) VALUES (false, now());
        RAISE 'the maintenance switch has two rows';
    EXCEPTION WHEN check_violation THEN NULL;
    END;
    ASSERT join_writers() = 3600;

    INSERT INTO large_dead_letters (reason, sender, published_at, body) VALUES ('why', 'who', now(), '\x00')
    RETURNING * INTO letter;
    ASSERT letter.rejected_at = now();
    BEGIN
        INSERT INTO large_dead_letters (id, reason, sender, body) OVERRIDING SYSTEM VALUE VALUES (letter.id, '', '', '');
        RAISE 'two large dead letters have the same id';
    EXCEPTION WHEN unique_violation THEN NULL;
    END;

    SELECT * INTO opened FROM open_attempts(ARRAY[job], ARRAY['a'], ARRAY[now()], ARRAY[NULL::timestamptz], ARRAY[false], ARRAY[1]);
    ASSERT (opened.is_open, opened.is_log, opened.begun, opened.moved) = (true, true, true, false);
    ASSERT EXISTS (SELECT FROM logs WHERE id = opened.log_id AND job_id = job);
    SELECT * INTO opened FROM open_attempts(ARRAY[job], ARRAY['a'], ARRAY[now() - interval '1 s'], ARRAY[NULL::timestamptz], ARRAY[false], ARRAY[1]);
    ASSERT (opened.begun, opened.moved) = (false, true);
    PERFORM open_attempts(ARRAY[job], ARRAY['b'], ARRAY[timestamptz '9999-01-01'], ARRAY[NULL::timestamptz], ARRAY[false], ARRAY[1]);
    ASSERT EXISTS (SELECT FROM log_attempts WHERE log_id = opened.log_id AND uuid = 'b' AND began_at = now());
    UPDATE log_attempts SET closed_at = now() WHERE id = opened.attempt_id;
    SELECT * INTO opened FROM open_attempts(ARRAY[job], ARRAY['a'], ARRAY[now()], ARRAY[now()], ARRAY[false], ARRAY[3]);
    ASSERT NOT opened.is_open AND (SELECT stale_parts = 3 FROM log_attempts WHERE id = opened.attempt_id);

    UPDATE log_attempts SET closed_at = now() - interval '1 s' WHERE id = opened.attempt_id;
    SELECT * INTO opened FROM open_attempts(ARRAY[job], ARRAY['a'], ARRAY[now()], ARRAY[now()], ARRAY[false], ARRAY[1]);
    ASSERT (opened.is_open, opened.begun, opened.stale_until) = (true, true, now() - interval '1 s');
    ASSERT EXISTS (SELECT FROM log_attempts WHERE id = opened.attempt_id AND stale_at = now()
        AND stale_until = opened.stale_until);

    PERFORM lock_archived_object(job, true);
    PERFORM lock_archived_object(job, false);
    PERFORM wait_for_writers();
    ASSERT (SELECT array_agg((classid, objid, mode)::text ORDER BY classid, mode) FROM pg_locks
        WHERE pid = pg_backend_pid() AND locktype = 'advisory') = ARRAY[
            '(0,7001001,ExclusiveLock)', '(0,7001001,ShareLock)',
            format('(7001002,%s,ExclusiveLock)', job % number_last()),
            format('(7001002,%s,ShareLock)', job % number_last())
        ];
END
$$;

ROLLBACK;
