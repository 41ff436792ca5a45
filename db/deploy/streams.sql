-- Deploy logflume:streams to pg
-- Which logs have live readers, and how new parts are announced to them.

BEGIN;

CREATE TABLE watched_logs (
    job_id bigint NOT NULL,
    way text NOT NULL CHECK (way IN ('stream', 'pusher')),
    until timestamptz NOT NULL,
    PRIMARY KEY (job_id, way)
);

COMMENT ON TABLE watched_logs IS
    'Logs with live readers, by the way they are read; an entry that is not renewed expires.';

-- plpgsql, so that a session caches the plans.
CREATE FUNCTION announce_parts(job_ids bigint[], lowest integer[]) RETURNS SETOF bigint
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('log_parts', w.job_id || ' ' || a.number || ' ' || pg_current_xact_id())
    FROM unnest(job_ids, lowest) a (job_id, number)
    JOIN watched_logs w ON w.job_id = a.job_id AND w.way = 'stream' AND w.until > now();

    RETURN QUERY
    SELECT w.job_id FROM watched_logs w
    WHERE w.job_id = ANY (job_ids) AND w.way = 'pusher' AND w.until > now();
END
$$;

COMMENT ON FUNCTION announce_parts IS
    'Notifies the streams of these jobs at commit, with the lowest new number and the transaction, '
    'by which a poller knows whether its snapshot already contained the parts. Returns the jobs '
    'whose Pusher channel is occupied.';

COMMIT;
