-- Revert logflume:kept_plans from pg

BEGIN;

DROP FUNCTION join_writers;

CREATE OR REPLACE FUNCTION announce_parts(job_ids bigint[], lowest integer[]) RETURNS SETOF bigint
LANGUAGE sql AS $$
    SELECT pg_notify('log_parts', w.job_id || ' ' || a.number)
    FROM unnest(job_ids, lowest) a (job_id, number)
    JOIN watched_logs w ON w.job_id = a.job_id AND w.way = 'stream' AND w.until > now();

    SELECT w.job_id FROM watched_logs w
    WHERE w.job_id = ANY (job_ids) AND w.way = 'pusher' AND w.until > now();
$$;

CREATE OR REPLACE FUNCTION log_attempt(log bigint) RETURNS bigint
LANGUAGE sql STABLE AS $$
    SELECT a.id FROM log_attempts a
    WHERE a.log_id = log AND a.closed_at IS NULL AND a.began_at IS NOT NULL
    ORDER BY a.began_at DESC, a.uuid DESC
    LIMIT 1
$$;

CREATE OR REPLACE FUNCTION content_parts(log bigint, attempt bigint)
RETURNS TABLE (
    id bigint, attempt_id bigint, number integer, created_at timestamptz, final boolean,
    content bytea
)
LANGUAGE sql STABLE AS $$
    -- Of several parts with the same attempt and number the one received last counts.
    (
        SELECT DISTINCT ON (p.number)
            p.id, p.attempt_id, p.number, p.created_at, p.final, p.content
        FROM log_parts p
        WHERE p.log_id = log AND p.attempt_id = attempt
            AND p.number BETWEEN 0 AND 2147483646
        ORDER BY p.number, p.created_at DESC, p.id DESC
    )
    UNION ALL
    -- Content written whole counts as a part before number 0, whichever attempt is the log.
    (
        SELECT p.id, p.attempt_id, p.number, p.created_at, p.final, p.content
        FROM log_parts p JOIN log_attempts a ON a.id = p.attempt_id
        WHERE a.log_id = log AND a.closed_at IS NULL AND p.log_id = log AND p.number = -1
        ORDER BY p.created_at DESC, p.id DESC
        LIMIT 1
    )
    UNION ALL
    -- So do `last` parts after every numbered one, in order of arrival, equal bytes only once.
    (
        SELECT (array_agg(p.id ORDER BY p.created_at, p.id))[1],
            (array_agg(p.attempt_id ORDER BY p.created_at, p.id))[1],
            p.number, min(p.created_at), bool_or(p.final), p.content
        FROM log_parts p JOIN log_attempts a ON a.id = p.attempt_id
        WHERE a.log_id = log AND a.closed_at IS NULL AND p.log_id = log
            AND p.number = 2147483647
        GROUP BY p.number, p.content
    )
$$;

COMMIT;
