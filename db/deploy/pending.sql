-- Deploy logflume:pending to pg
-- Logs with work left: to be archived, purged, or deleted from the archive.

BEGIN;

CREATE INDEX logs_pending ON logs (id)
WHERE (purged_at IS NULL OR late_parts OR archive_outdated) AND NOT empty;
CREATE INDEX logs_outdated ON logs (archive_outdated_at) WHERE archive_outdated;
CREATE INDEX logs_unarchived ON logs (id) WHERE (NOT archive_verified OR late_parts) AND NOT empty;

COMMENT ON INDEX logs_pending IS
    'What the sweep scans: its size follows the logs in progress, not all logs.';
COMMENT ON INDEX logs_outdated IS 'Finds the oldest pending deletion from the archive.';
COMMENT ON INDEX logs_unarchived IS
    'Finds the oldest unarchived log: those that only wait for their purge are not in it.';

CREATE VIEW pending_rows AS
SELECT l.* FROM logs l
WHERE (l.purged_at IS NULL OR l.late_parts OR l.archive_outdated) AND NOT l.empty;

COMMENT ON VIEW pending_rows IS 'Rows of logs with work left, found by the index logs_pending.';

CREATE FUNCTION pending_logs(after bigint, quiet_seconds float8, purge_seconds float8)
RETURNS TABLE (
    id bigint, job_id bigint, outdated boolean, ended boolean, heard_at timestamptz,
    archived_at timestamptz, bare boolean
)
LANGUAGE sql STABLE AS $$
    SELECT l.id, l.job_id,
        l.archive_outdated OR (c.is_cleared AND coalesce(l.archive_settles_at <= now(), false)),
        p.final IS TRUE AND l.aggregated_at IS NULL,
        coalesce(p.created_at, l.updated_at), l.archived_at,
        c.is_cleared AND NOT l.archive_outdated AND l.archive_settles_at IS NULL
    FROM pending_rows l LEFT JOIN LATERAL last_part(l.id) p ON true,
        LATERAL (SELECT p.created_at IS NULL AND l.aggregated_at IS NULL AS is_cleared) c
    WHERE l.id > after
        AND l.updated_at < now() - make_interval(secs => quiet_seconds)
        AND coalesce(p.created_at < now() - make_interval(secs => quiet_seconds), true)
        -- A verified log has no work left until its purge is due.
        -- A cleared log has no work left until its object is checked again.
        AND NOT (c.is_cleared AND NOT l.archive_outdated AND coalesce(l.archive_settles_at > now(), false))
        AND (NOT l.archive_verified OR l.late_parts OR l.archive_outdated
            OR l.archived_at < now() - make_interval(secs => quiet_seconds + purge_seconds))
$$;

COMMENT ON FUNCTION pending_logs IS
    'Logs with overdue work above an id: no write for quiet_seconds and, if verified, a purge due '
    'that long ago. outdated: a deletion from the archive, or the check after it, is due. ended: '
    'the final part is here, but the log was never aggregated. heard_at: the last write. bare: it '
    'has neither parts nor content, and no check of its object is due.';

CREATE VIEW bare_logs AS
SELECT l.id, l.job_id FROM logs l
WHERE l.aggregated_at IS NULL AND NOT l.archive_outdated
    AND NOT EXISTS (SELECT FROM log_parts WHERE log_id = l.id)
    AND NOT EXISTS (
        SELECT FROM log_attempts
        WHERE log_id = l.id AND closed_at IS NULL AND began_at IS NOT NULL
    );

COMMENT ON VIEW bare_logs IS
    'Logs with neither content, parts, an open attempt that began, nor a pending deletion.';

CREATE VIEW backfill_logs AS
SELECT l.id, l.job_id, coalesce(p.created_at, l.updated_at) AS heard_at, l.archived_at,
    p.created_at IS NULL AND l.aggregated_at IS NULL AND NOT l.archive_outdated AS bare,
    l.aggregated_at IS NOT NULL AS aggregated,
    EXISTS (SELECT FROM log_parts WHERE log_id = l.id AND (final OR number = number_whole())) AS ended,
    l.purged_at IS NOT NULL AND NOT l.late_parts AND NOT EXISTS (
        SELECT FROM log_parts WHERE log_id = l.id AND created_at = l.parts_since
    ) AS gone,
    extract(epoch FROM now())::float8 AS since
FROM logs l LEFT JOIN LATERAL last_part(l.id) p ON true;

COMMENT ON VIEW backfill_logs IS
    'What a backfill needs to know of a log, as in pending_logs(). ended: it has a final part, of any '
    'attempt, or was written whole. gone: only the archive holds its content. since: now.';

COMMIT;
