-- Deploy logflume:kept_plans to pg
--
-- Functions whose plans a session keeps (those of SQL functions are made for each call), and a content
-- rule that reads parts in the order of their key instead of sorting their contents.

BEGIN;

CREATE OR REPLACE FUNCTION content_parts(log bigint, attempt bigint)
RETURNS TABLE (
    id bigint, attempt_id bigint, number integer, created_at timestamptz, final boolean,
    content bytea
)
LANGUAGE sql STABLE AS $$
    -- Of several parts with the same attempt and number the one received last counts. The order is
    -- the key's from here to the end, so that nothing is sorted, however long the log.
    (
        SELECT p.id, p.attempt_id, p.number, p.created_at, p.final, p.content
        FROM (
            SELECT p.id, p.attempt_id, p.number, p.created_at, p.final, p.content,
                lead(true) OVER (PARTITION BY p.number ORDER BY p.created_at, p.id) AS is_replaced
            FROM log_parts p
            WHERE p.log_id = log AND p.attempt_id = attempt
                AND p.number BETWEEN 0 AND 2147483646
        ) p
        WHERE p.is_replaced IS NOT TRUE
        ORDER BY p.number, p.created_at, p.id
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

CREATE OR REPLACE FUNCTION log_attempt(log bigint) RETURNS bigint
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN (
        SELECT a.id FROM log_attempts a
        WHERE a.log_id = log AND a.closed_at IS NULL AND a.began_at IS NOT NULL
        ORDER BY a.began_at DESC, a.uuid DESC
        LIMIT 1
    );
END
$$;

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

-- Its second statement sees what was committed while the first one waited.
CREATE FUNCTION join_writers() RETURNS numeric
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(7001001);
    RETURN (SELECT extract(epoch FROM until - now()) FROM maintenance WHERE until > now());
END
$$;

COMMENT ON FUNCTION join_writers IS
    'Before parts are written: who switches maintenance on waits for this transaction. Returns for how '
    'many seconds it is on, null where it is off.';

COMMIT;
