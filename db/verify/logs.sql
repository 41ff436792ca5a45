-- Verify logflume:logs on pg

SELECT id, job_id, content, content_bytes, content_sha256, content_attempt_id, part_count,
    missing_parts, parts_since, archive_outdated, created_at, updated_at, aggregated_at, archiving, archived_at,
    archive_verified, purged_at, removed_at, removed_by
FROM logs WHERE false;

SELECT id, log_id, uuid, began_at, closed_at, stale_parts FROM log_attempts WHERE false;
