-- Verify logflume:streams on pg

BEGIN;

SELECT job_id, way, until FROM watched_logs WHERE false;

DO $$
DECLARE
    job CONSTANT bigint := 9223372036854775807;
    stored record;
BEGIN
    INSERT INTO watched_logs (job_id, way, until) VALUES
        (job, 'stream', now() + interval '1 min'), (job, 'pusher', now() + interval '1 min'),
        (job - 1, 'pusher', now())
    ON CONFLICT (job_id, way) DO UPDATE SET until = excluded.until;
    BEGIN
        INSERT INTO watched_logs (job_id, way, until) VALUES (job, 'other', now());
        RAISE 'watched_logs accepts any way';
    EXCEPTION WHEN check_violation THEN NULL;
    END;
    ASSERT ARRAY(SELECT announce_parts(ARRAY[job, job - 1], '{0,0}')) = ARRAY[job];

    DELETE FROM maintenance;
    SELECT * INTO stored FROM store_parts(ARRAY[job], ARRAY['b'], ARRAY[now()], ARRAY[NULL::timestamptz], ARRAY[true], ARRAY[1],
        ARRAY[1], ARRAY[now()], ARRAY[now()], ARRAY[0], ARRAY[true], ARRAY['a'::bytea],
        ARRAY[1], ARRAY[9], ARRAY[8::bigint], ARRAY['\x07'::bytea], '1 min');
    ASSERT (stored.is_open, stored.is_log, stored.begun, stored.moved, stored.occupied) = (true, true, true, false, true);
    ASSERT (SELECT (attempt_id, number, final, content) = (stored.attempt_id, 0, true, 'a'::bytea)
        FROM log_parts WHERE log_id = stored.log_id);
    ASSERT (SELECT (total_parts, total_bytes, total_sha256) = (9, 8, '\x07'::bytea)
        FROM log_attempts WHERE id = stored.attempt_id);
    INSERT INTO maintenance (until) VALUES (now() + interval '1 hour');
    ASSERT NOT EXISTS (SELECT FROM store_parts(ARRAY[job], ARRAY['b'], ARRAY[now()], ARRAY[NULL::timestamptz], ARRAY[true], ARRAY[1],
        ARRAY[1], ARRAY[now()], ARRAY[now()], ARRAY[0], ARRAY[true], ARRAY['a'::bytea],
        ARRAY[1], ARRAY[9], ARRAY[8::bigint], ARRAY['\x07'::bytea], '1 min'));
END
$$;

ROLLBACK;
