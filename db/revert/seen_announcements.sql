-- Revert logflume:seen_announcements from pg

BEGIN;

CREATE OR REPLACE FUNCTION announce_parts(job_ids bigint[], lowest integer[]) RETURNS SETOF bigint
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('log_parts', w.job_id || ' ' || a.number)
    FROM unnest(job_ids, lowest) a (job_id, number)
    JOIN watched_logs w ON w.job_id = a.job_id AND w.way = 'stream' AND w.until > now();

    RETURN QUERY
    SELECT w.job_id FROM watched_logs w
    WHERE w.job_id = ANY (job_ids) AND w.way = 'pusher' AND w.until > now();
END
$$;

COMMENT ON FUNCTION announce_parts IS
    'Wakes, at the commit, the streams of these jobs that somebody reads, and tells them the '
    'lowest number that came; returns the jobs whose Pusher channel is occupied.';

COMMIT;
