-- Deploy logflume:watching to pg

BEGIN;

ALTER TABLE logs ADD COLUMN generation integer NOT NULL DEFAULT 0;
ALTER TABLE logs ADD COLUMN late_parts boolean NOT NULL DEFAULT false;

COMMENT ON COLUMN logs.generation IS
    'How often content was written whole: a reader who saw another one must begin again.';
COMMENT ON COLUMN logs.late_parts IS
    'Parts came after the aggregation: until the next one, readers put the log together of parts.';

CREATE TABLE watched_logs (
    job_id bigint NOT NULL,
    way text NOT NULL CHECK (way IN ('stream', 'pusher')),
    until timestamptz NOT NULL,
    PRIMARY KEY (job_id, way)
);

COMMENT ON TABLE watched_logs IS
    'Marks of logs that somebody watches, and by which way; one that is not renewed expires.';

CREATE FUNCTION announce_parts(job_ids bigint[], lowest integer[]) RETURNS SETOF bigint
LANGUAGE sql AS $$
    SELECT pg_notify('log_parts', w.job_id || ' ' || a.number)
    FROM unnest(job_ids, lowest) a (job_id, number)
    JOIN watched_logs w ON w.job_id = a.job_id AND w.way = 'stream' AND w.until > now();

    SELECT w.job_id FROM watched_logs w
    WHERE w.job_id = ANY (job_ids) AND w.way = 'pusher' AND w.until > now();
$$;

COMMENT ON FUNCTION announce_parts IS
    'Wakes, at the commit, the streams of these jobs that somebody reads, and tells them the '
    'lowest number that came; returns the jobs whose Pusher channel is occupied.';

COMMIT;
