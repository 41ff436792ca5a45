-- Verify logflume:streams on pg

BEGIN;

SELECT job_id, way, until FROM watched_logs WHERE false;

DO $$
DECLARE
    job CONSTANT bigint := 9223372036854775807;
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
END
$$;

ROLLBACK;
