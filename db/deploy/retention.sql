-- Deploy logflume:retention to pg
-- Legal holds, and the logs that a retention policy may delete.

BEGIN;

CREATE TABLE log_holds (
    log_id bigint PRIMARY KEY REFERENCES logs,
    held_at timestamptz NOT NULL DEFAULT now(),
    reason text NOT NULL
);

COMMENT ON TABLE log_holds IS
    'Logs under legal hold: retention skips them, and they cannot be written or cleared whole.';

CREATE INDEX logs_archived ON logs (archived_at, id) WHERE purged_at IS NOT NULL;
CREATE INDEX logs_empty ON logs (updated_at, id) WHERE empty;

COMMENT ON INDEX logs_archived IS 'Finished logs for retention, the oldest first.';
COMMENT ON INDEX logs_empty IS 'Logs without text for retention, the oldest first.';

CREATE FUNCTION expirable_logs(state text, older_than_days integer, larger_than bigint)
RETURNS TABLE (
    id bigint, job_id bigint, at timestamptz, bytes bigint, sha256 text, matches boolean, held boolean
)
LANGUAGE sql STABLE AS $$
    -- Each branch is sorted by its index, so that a page costs no sort.
    (
        SELECT l.id, l.job_id, l.archived_at, coalesce(l.content_bytes, 0), encode(l.content_sha256, 'hex'),
            l.archive_verified AND NOT l.late_parts AND NOT l.archive_outdated
                AND (state = 'done' OR l.removed_at IS NOT NULL) AND coalesce(l.content_bytes, 0) > larger_than,
            EXISTS (SELECT FROM log_holds h WHERE h.log_id = l.id)
        FROM logs l
        WHERE state IN ('done', 'removed') AND l.purged_at IS NOT NULL
            AND l.archived_at < now() - make_interval(days => older_than_days)
        ORDER BY l.archived_at, l.id
    )
    UNION ALL
    (
        SELECT l.id, l.job_id, l.updated_at, coalesce(l.content_bytes, 0), encode(l.content_sha256, 'hex'),
            coalesce(l.content_bytes, 0) > larger_than,
            EXISTS (SELECT FROM log_holds h WHERE h.log_id = l.id)
        FROM logs l
        WHERE state = 'empty' AND l.empty AND l.updated_at < now() - make_interval(days => older_than_days)
        ORDER BY l.updated_at, l.id
    )
$$;

COMMENT ON FUNCTION expirable_logs IS
    'Logs older than a retention policy''s limit in one of its states (done, removed, empty): since '
    'when, whether the rest of the policy matches, and whether they are under legal hold.';

COMMIT;
