-- Revert logflume:unseen_aggregations from pg

BEGIN;

CREATE OR REPLACE FUNCTION open_attempts(
    job_ids bigint[], uuids text[], begins timestamptz[], part_counts integer[]
)
RETURNS TABLE (
    log_id bigint, attempt_id bigint, is_open boolean, is_log boolean, begun boolean, moved boolean
)
LANGUAGE plpgsql AS $$
DECLARE
    aggregated bigint[];
    new_attempts bigint[];
    moved_attempts bigint[];
BEGIN
    INSERT INTO logs (job_id)
    SELECT DISTINCT j FROM unnest(job_ids) j
    WHERE NOT EXISTS (SELECT FROM logs l WHERE l.job_id = j)
    ORDER BY j
    ON CONFLICT DO NOTHING;

    -- Whatever may change which attempt is the log, or adds to one that was aggregated, waits for
    -- an aggregation under way, and makes the next one wait. Before any attempt: writing content
    -- whole locks in this order too.
    WITH locked AS (
        SELECT l.id, l.aggregated_at IS NOT NULL AS is_aggregated FROM logs l
        WHERE l.id IN (
            SELECT k.id
            FROM unnest(job_ids, uuids, begins) i (job_id, uuid, begin_at)
            JOIN logs k ON k.job_id = i.job_id
            LEFT JOIN log_attempts a ON a.log_id = k.id AND a.uuid = i.uuid
            WHERE a.began_at IS NULL OR i.begin_at < a.began_at OR k.aggregated_at IS NOT NULL
        )
        ORDER BY l.id
        FOR NO KEY UPDATE
    )
    SELECT array_agg(locked.id) FILTER (WHERE is_aggregated) INTO aggregated FROM locked;

    WITH made AS (
        INSERT INTO log_attempts AS a (log_id, uuid, began_at)
        SELECT l.id, i.uuid, i.begin_at
        FROM unnest(job_ids, uuids, begins) i (job_id, uuid, begin_at)
        JOIN logs l ON l.job_id = i.job_id
        WHERE NOT EXISTS (SELECT FROM log_attempts o WHERE o.log_id = l.id AND o.uuid = i.uuid)
        ORDER BY l.id, i.uuid
        ON CONFLICT DO NOTHING
        RETURNING a.id, a.began_at
    )
    SELECT array_agg(made.id) INTO new_attempts FROM made WHERE made.began_at IS NOT NULL;

    PERFORM FROM unnest(job_ids, uuids) i (job_id, uuid)
    JOIN logs l ON l.job_id = i.job_id
    JOIN log_attempts a ON a.log_id = l.id AND a.uuid = i.uuid
    ORDER BY a.id
    FOR KEY SHARE OF a;

    WITH earlier AS (
        SELECT a.id, i.begin_at, a.began_at IS NULL AS first
        FROM unnest(job_ids, uuids, begins) i (job_id, uuid, begin_at)
        JOIN logs l ON l.job_id = i.job_id
        JOIN log_attempts a ON a.log_id = l.id AND a.uuid = i.uuid
        WHERE a.closed_at IS NULL AND i.begin_at < coalesce(a.began_at, 'infinity')
            AND a.began_at IS DISTINCT FROM 'infinity'
        ORDER BY a.id
        FOR NO KEY UPDATE OF a
    ), moved AS (
        UPDATE log_attempts a SET began_at = least(a.began_at, e.begin_at)
        FROM earlier e WHERE a.id = e.id
        RETURNING a.id, e.first
    )
    SELECT new_attempts || array_agg(moved.id) FILTER (WHERE moved.first),
        array_agg(moved.id) FILTER (WHERE NOT moved.first)
    INTO new_attempts, moved_attempts FROM moved;

    -- A log that another attempt has become is no longer the one aggregated and archived. What is
    -- known of the content stays: its parts may be gone, and some of it may belong to this one too.
    UPDATE logs l
    SET aggregated_at = NULL, archiving = false, archived_at = NULL, archive_verified = false,
        purged_at = NULL, updated_at = now()
    FROM log_attempts a
    WHERE a.id = ANY (new_attempts || moved_attempts) AND l.id = a.log_id AND l.aggregated_at IS NOT NULL
        AND l.content_attempt_id IS DISTINCT FROM log_attempt(l.id);

    -- Parts of open attempts come to it: until it is aggregated anew, its content is not all of it.
    UPDATE logs l SET late_parts = true
    WHERE l.id = ANY (aggregated) AND l.aggregated_at IS NOT NULL AND EXISTS (
        SELECT FROM unnest(job_ids, uuids) i (job_id, uuid)
        JOIN log_attempts a ON a.log_id = l.id AND a.uuid = i.uuid
        WHERE i.job_id = l.job_id AND a.closed_at IS NULL
    );

    UPDATE log_attempts a SET stale_parts = a.stale_parts + i.part_count
    FROM unnest(job_ids, uuids, part_counts) i (job_id, uuid, part_count)
    JOIN logs l ON l.job_id = i.job_id
    WHERE a.log_id = l.id AND a.uuid = i.uuid AND a.closed_at IS NOT NULL;

    RETURN QUERY
    SELECT l.id, a.id, a.closed_at IS NULL, a.id = log_attempt(l.id),
        coalesce(a.id = ANY (new_attempts), false), coalesce(a.id = ANY (moved_attempts), false)
    FROM unnest(job_ids, uuids) WITH ORDINALITY i (job_id, uuid, place)
    JOIN logs l ON l.job_id = i.job_id
    JOIN log_attempts a ON a.log_id = l.id AND a.uuid = i.uuid
    ORDER BY i.place;
END
$$;

COMMIT;
