-- Deploy logflume:write_path to pg
-- How a batch of parts is written, and the locks that writers, maintenance and archiving share.

BEGIN;

CREATE TABLE maintenance (
    is_on boolean PRIMARY KEY DEFAULT true CHECK (is_on),
    until timestamptz NOT NULL
);

COMMENT ON TABLE maintenance IS
    'The maintenance switch: at most one row. Until then parts are neither read nor written.';

CREATE TABLE large_dead_letters (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    rejected_at timestamptz NOT NULL DEFAULT now(),
    reason text NOT NULL,
    sender text NOT NULL,
    published_at timestamptz,
    body bytea NOT NULL
);

COMMENT ON TABLE large_dead_letters IS
    'Invalid messages that RabbitMQ refuses as dead letters because of their size.';

-- Advisory locks: 7001001 for writers of parts; 7001002 with a job id, reduced to an integer, for the
-- archived object of that job.

-- The second statement sees what was committed while the first one waited.
CREATE FUNCTION join_writers() RETURNS numeric
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(7001001);
    RETURN (SELECT extract(epoch FROM until - now()) FROM maintenance WHERE until > now());
END
$$;

COMMENT ON FUNCTION join_writers IS
    'Registers a transaction that writes parts: wait_for_writers() waits for it. Returns for how '
    'many more seconds maintenance is on, or null.';

CREATE FUNCTION wait_for_writers() RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(7001001);
END
$$;

COMMENT ON FUNCTION wait_for_writers IS
    'Waits for every transaction that writes parts, and blocks new ones until this one ends.';

CREATE FUNCTION lock_archived_object(job bigint, is_shared boolean) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF is_shared THEN
        PERFORM pg_advisory_xact_lock_shared(7001002, (job % 2147483647)::integer);
    ELSE
        PERFORM pg_advisory_xact_lock(7001002, (job % 2147483647)::integer);
    END IF;
END
$$;

COMMENT ON FUNCTION lock_archived_object IS
    'Locks the archived object of a job until the transaction ends: shared to start an upload, '
    'exclusive to delete the object outside of the log''s workflow.';

CREATE FUNCTION open_attempts(
    job_ids bigint[], uuids text[], begins timestamptz[], restarts timestamptz[], ends boolean[],
    part_counts integer[]
)
RETURNS TABLE (
    log_id bigint, attempt_id bigint, is_open boolean, is_log boolean, begun boolean, moved boolean,
    stale_until timestamptz
)
LANGUAGE plpgsql AS $$
DECLARE
    aggregated bigint[];
    new_attempts bigint[];
    moved_attempts bigint[];
    restarted_attempts bigint[];
BEGIN
    -- The clock of a runner or of a drain may be ahead: an attempt that begins in the future would
    -- stay the log whatever follows.
    begins := ARRAY(
        SELECT CASE WHEN b > now() THEN now() ELSE b END
        FROM unnest(begins) WITH ORDINALITY u (b, place) ORDER BY place
    );
    restarts := ARRAY(
        SELECT CASE WHEN r > now() THEN now() ELSE r END
        FROM unnest(restarts) WITH ORDINALITY u (r, place) ORDER BY place
    );

    INSERT INTO logs (job_id)
    SELECT DISTINCT j FROM unnest(job_ids) j
    WHERE NOT EXISTS (SELECT FROM logs l WHERE l.job_id = j)
    ORDER BY j
    ON CONFLICT DO NOTHING;

    -- A batch that may change which attempt is the log, or that adds to an aggregated log, waits
    -- for an aggregation in progress and makes the next one wait. Logs before attempts: writing
    -- content whole locks in this order too.
    WITH locked AS (
        SELECT l.id, l.aggregated_at IS NOT NULL AS is_aggregated FROM logs l
        WHERE l.id IN (
            SELECT k.id
            FROM unnest(job_ids, uuids, begins, ends) i (job_id, uuid, begin_at, has_total)
            JOIN logs k ON k.job_id = i.job_id
            LEFT JOIN log_attempts a ON a.log_id = k.id AND a.uuid = i.uuid
            WHERE a.began_at IS NULL OR i.begin_at < a.began_at OR k.aggregated_at IS NOT NULL
                OR a.closed_at IS NOT NULL OR i.has_total
        )
        ORDER BY l.id
        FOR NO KEY UPDATE
    )
    SELECT array_agg(locked.id) FILTER (WHERE is_aggregated) INTO aggregated FROM locked;

    WITH inserted AS (
        INSERT INTO log_attempts AS a (log_id, uuid, began_at)
        SELECT l.id, i.uuid, i.begin_at
        FROM unnest(job_ids, uuids, begins) i (job_id, uuid, begin_at)
        JOIN logs l ON l.job_id = i.job_id
        WHERE NOT EXISTS (SELECT FROM log_attempts o WHERE o.log_id = l.id AND o.uuid = i.uuid)
        ORDER BY l.id, i.uuid
        ON CONFLICT DO NOTHING
        RETURNING a.id, a.began_at
    )
    SELECT array_agg(inserted.id) INTO new_attempts FROM inserted WHERE inserted.began_at IS NOT NULL;

    -- Until the batch is committed, content written whole waits for these: a part is either visible
    -- to it and deleted, or finds its attempt closed and is stale.
    PERFORM FROM unnest(job_ids, uuids) i (job_id, uuid)
    JOIN logs l ON l.job_id = i.job_id
    JOIN log_attempts a ON a.log_id = l.id AND a.uuid = i.uuid
    ORDER BY a.id
    FOR KEY SHARE OF a;

    -- A log whose row is not locked here may have been aggregated since the first statement, and
    -- even purged. It cannot be purged any more, now that its attempts are locked: retry the batch.
    IF EXISTS (
        SELECT FROM unnest(job_ids, uuids) i (job_id, uuid)
        JOIN logs l ON l.job_id = i.job_id
        JOIN log_attempts a ON a.log_id = l.id AND a.uuid = i.uuid
        WHERE l.aggregated_at IS NOT NULL AND a.closed_at IS NULL AND l.id <> ALL (coalesce(aggregated, '{}'))
    ) THEN
        RAISE serialization_failure USING MESSAGE = 'a log of this batch was aggregated meanwhile';
    END IF;

    -- Part 0 of a closed uuid, published after it was closed: a requeued run with the same uuid.
    -- After a removal it could bring removed text back.
    WITH requeued AS (
        SELECT a.id, i.restart_at
        FROM unnest(job_ids, uuids, restarts) i (job_id, uuid, restart_at)
        JOIN logs l ON l.job_id = i.job_id
        JOIN log_attempts a ON a.log_id = l.id AND a.uuid = i.uuid
        WHERE a.closed_at < i.restart_at AND l.removed_at IS NULL
        ORDER BY a.id
        FOR NO KEY UPDATE OF a
    ), restarted AS (
        UPDATE log_attempts a SET began_at = r.restart_at, stale_until = a.closed_at, closed_at = NULL
        FROM requeued r WHERE a.id = r.id
        RETURNING a.id
    )
    SELECT array_agg(restarted.id) INTO restarted_attempts FROM restarted;

    -- An attempt that begins at infinity, as that of an imported log does, keeps its begin.
    WITH earlier AS (
        SELECT a.id, i.begin_at, a.began_at IS NULL AS first
        FROM unnest(job_ids, uuids, begins) i (job_id, uuid, begin_at)
        JOIN logs l ON l.job_id = i.job_id
        JOIN log_attempts a ON a.log_id = l.id AND a.uuid = i.uuid
        WHERE a.closed_at IS NULL AND i.begin_at < coalesce(a.began_at, 'infinity')
            AND a.began_at IS DISTINCT FROM 'infinity'
            AND (a.stale_until < i.begin_at) IS NOT FALSE
        ORDER BY a.id
        FOR NO KEY UPDATE OF a
    ), moved AS (
        UPDATE log_attempts a SET began_at = least(a.began_at, e.begin_at)
        FROM earlier e WHERE a.id = e.id
        RETURNING a.id, e.first
    )
    SELECT new_attempts || restarted_attempts || array_agg(moved.id) FILTER (WHERE moved.first),
        array_agg(moved.id) FILTER (WHERE NOT moved.first)
    INTO new_attempts, moved_attempts FROM moved;

    -- If another attempt is the log now, the aggregation and the archive are superseded. The row
    -- keeps the content: its parts may be gone, and some of it may belong to the new log too.
    UPDATE logs l
    SET aggregated_at = NULL, archiving = false, archived_at = NULL, archive_verified = false,
        purged_at = NULL, updated_at = now()
    FROM log_attempts a
    WHERE a.id = ANY (new_attempts || moved_attempts) AND l.id = a.log_id AND l.aggregated_at IS NOT NULL
        AND l.content_attempt_id IS DISTINCT FROM log_attempt(l.id);

    -- The log gets parts of open attempts: until the next aggregation its content is incomplete.
    UPDATE logs l SET late_parts = true
    WHERE l.id = ANY (aggregated) AND l.aggregated_at IS NOT NULL AND EXISTS (
        SELECT FROM unnest(job_ids, uuids) i (job_id, uuid)
        JOIN log_attempts a ON a.log_id = l.id AND a.uuid = i.uuid
        WHERE i.job_id = l.job_id AND a.closed_at IS NULL
    );

    UPDATE log_attempts a SET stale_parts = a.stale_parts + i.part_count, stale_at = now()
    FROM unnest(job_ids, uuids, part_counts) i (job_id, uuid, part_count)
    JOIN logs l ON l.job_id = i.job_id
    WHERE a.log_id = l.id AND a.uuid = i.uuid AND a.closed_at IS NOT NULL;

    RETURN QUERY
    SELECT l.id, a.id, a.closed_at IS NULL, a.id = log_attempt(l.id),
        coalesce(a.id = ANY (new_attempts), false), coalesce(a.id = ANY (moved_attempts), false),
        a.stale_until
    FROM unnest(job_ids, uuids) WITH ORDINALITY i (job_id, uuid, place)
    JOIN logs l ON l.job_id = i.job_id
    JOIN log_attempts a ON a.log_id = l.id AND a.uuid = i.uuid
    ORDER BY i.place;
END
$$;

COMMENT ON FUNCTION open_attempts IS
    'Creates and locks the rows that a batch needs. For each (job, uuid), in the order given: the '
    'log and attempt its parts belong to, whether the attempt is open, whether it is the log, '
    'whether this batch begins it, and whether it moves the begin, which may make another attempt '
    'the log. A null begin means only `last` parts, which begin nothing. restarts: the last publish '
    'time of a part 0, which may begin a closed uuid again; stale_until: parts of such an attempt '
    'published until then are stale, and the caller counts them. ends: the batch has the total of the '
    'attempt, which the caller stores. Every caller locks logs, '
    'then attempts, each by id, so that no deadlock is possible.';

COMMIT;
