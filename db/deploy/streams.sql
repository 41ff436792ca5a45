-- Deploy logflume:streams to pg
-- Which logs have live readers, how new parts are announced to them, and how a batch is stored.

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

-- One statement: nothing that the client does or fails to do can prolong the locks.
CREATE FUNCTION store_parts(
    job_ids bigint[], uuids text[], begins timestamptz[], restarts timestamptz[], ends boolean[],
    part_counts integer[],
    groups integer[], published timestamptz[], received timestamptz[], numbers integer[], finals boolean[], contents bytea[],
    total_of integer[], total_parts integer[], total_bytes bigint[], total_sha256 bytea[],
    lock_wait interval
)
RETURNS TABLE (
    log_id bigint, attempt_id bigint, is_open boolean, is_log boolean, begun boolean, moved boolean,
    stale_until timestamptz, occupied boolean
)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    opened record;
    fresh boolean[];
    occupied_jobs bigint[];
BEGIN
    PERFORM set_config('lock_timeout', (extract(epoch FROM lock_wait) * 1000)::bigint::text, true);
    IF join_writers() IS NOT NULL THEN
        RETURN;
    END IF;

    SELECT array_agg(o.log_id ORDER BY place) AS log_ids,
        array_agg(o.attempt_id ORDER BY place) AS attempt_ids, array_agg(o.is_open ORDER BY place) AS are_open,
        array_agg(o.is_log ORDER BY place) AS are_log, array_agg(o.begun ORDER BY place) AS begun,
        array_agg(o.moved ORDER BY place) AS moved, array_agg(o.stale_until ORDER BY place) AS stale_until
    INTO opened
    FROM open_attempts(job_ids, uuids, begins, restarts, ends, part_counts)
        WITH ORDINALITY o (log_id, attempt_id, is_open, is_log, begun, moved, stale_until, place);

    -- Parts of a restarted attempt that belong to its closed run are stale.
    fresh := ARRAY(
        SELECT opened.are_open[p.place] AND (opened.stale_until[p.place] < p.published_at) IS NOT FALSE
        FROM unnest(groups, published) WITH ORDINALITY p (place, published_at, n) ORDER BY p.n
    );
    UPDATE log_attempts a SET stale_parts = a.stale_parts + s.count, stale_at = now()
    FROM (
        SELECT p.place, count(*) AS count FROM unnest(groups, fresh) p (place, is_fresh)
        WHERE NOT p.is_fresh AND opened.are_open[p.place] GROUP BY p.place
    ) s WHERE a.id = opened.attempt_ids[s.place];

    -- Of several totals of an attempt the one received last counts. Their logs are locked.
    UPDATE log_attempts a SET total_parts = t.parts, total_bytes = t.bytes, total_sha256 = t.sha256
    FROM (
        SELECT DISTINCT ON (opened.attempt_ids[groups[u.n]]) opened.attempt_ids[groups[u.n]] AS id, u.*
        FROM unnest(total_of, total_parts, total_bytes, total_sha256) u (n, parts, bytes, sha256)
        WHERE fresh[u.n] ORDER BY 1, u.n DESC
    ) t WHERE a.id = t.id;

    SELECT array_agg(job) INTO occupied_jobs FROM (
        SELECT array_agg(j.job) AS jobs, array_agg(j.lowest) AS lowest FROM (
            SELECT job_ids[p.place] AS job, min(p.number) AS lowest
            FROM unnest(groups, numbers) p (place, number) GROUP BY 1
        ) j
    ) a, announce_parts(a.jobs, a.lowest) job;

    -- A log with parts has an attempt that began, or parts that begin none. Opening its attempt
    -- locked the row of its log, so this does not wait.
    UPDATE logs SET empty = false, expired_at = NULL
    WHERE id IN (
        SELECT opened.log_ids[p.place] FROM unnest(groups, fresh) p (place, is_fresh)
        WHERE p.is_fresh AND (opened.begun[p.place] OR begins[p.place] IS NULL)
    ) AND (empty OR expired_at IS NOT NULL);

    -- In the order of receipt, by which the ids decide which of two parts came last.
    INSERT INTO log_parts (log_id, attempt_id, created_at, number, final, content)
    SELECT opened.log_ids[p.place], opened.attempt_ids[p.place], p.received_at, p.number, p.final, p.content
    FROM unnest(groups, fresh, received, numbers, finals, contents)
        p (place, is_fresh, received_at, number, final, content)
    WHERE p.is_fresh;

    RETURN QUERY
    SELECT o.log_id, o.attempt_id, o.is_open, o.is_log, o.begun, o.moved, o.stale_until,
        o.job_id = ANY (coalesce(occupied_jobs, '{}'))
    FROM unnest(opened.log_ids, opened.attempt_ids, opened.are_open, opened.are_log, opened.begun,
        opened.moved, opened.stale_until, job_ids) WITH ORDINALITY
        o (log_id, attempt_id, is_open, is_log, begun, moved, stale_until, job_id, place)
    ORDER BY o.place;
END
$$;

COMMENT ON FUNCTION store_parts IS
    'Stores a batch: parts of open attempts are inserted, those of closed ones counted, and streams '
    'notified. The first six arrays describe the attempts as for open_attempts(), the next six the '
    'parts, each with the position of its attempt, the others the totals, each with the position of '
    'its part. Returns the attempts in the order given, and '
    'nothing if maintenance is on. Waits for each lock for at most lock_wait.';

COMMIT;
