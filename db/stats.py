"""Statistics of the database for metrics, at a cost that does not grow with it."""

import msgspec

from db.connect import Connection
from db.partitions import partitions

# Ids rise with time, except for jobs that are restarted: an old row may have a new attempt. So the
# first this many unarchived rows are examined.
EXAMINED = 100
OLDEST_UNARCHIVED = """
SELECT coalesce(max(extract(epoch FROM now() - began_at)), 0)::float8 FROM (
    SELECT coalesce(
        (SELECT max(began_at) FROM log_attempts WHERE log_id = l.id AND began_at < 'infinity'),
        l.updated_at) AS began_at
    FROM logs l
    WHERE (NOT archive_verified OR late_parts) AND NOT empty
    ORDER BY id LIMIT $1
) oldest
"""
OLDEST_PENDING_DELETION = """
SELECT coalesce(extract(epoch FROM now() - min(archive_outdated_at)), 0)::float8
FROM logs WHERE archive_outdated
"""
IS_UNDER_MAINTENANCE = "SELECT EXISTS (SELECT FROM maintenance WHERE until > now())"
MOST_COUNTED = 10_000
COUNT_PARTS = "SELECT count_partition_parts($1, $2)"


# Stale parts of a log that has no text: a requeued run may have been taken for its predecessor.
STALE_ONLY = """
SELECT count(DISTINCT a.log_id) FROM log_attempts a JOIN logs l ON l.id = a.log_id
WHERE a.stale_at > now() - interval '1 hour'
    AND l.aggregated_at IS NULL AND l.removed_at IS NULL AND l.expired_at IS NULL
    AND NOT EXISTS (SELECT FROM log_parts WHERE log_id = l.id)
"""

# Logs that stay in a phase although nothing keeps them there: neither parts, nor a timer. A log
# without a final part is aggregated after the idle timeout, a verified one purged after its delay.
OVERDUE_SECONDS = 1800
MOST_EXAMINED = 1000
OVERDUE = """
SELECT count(*) FILTER (WHERE phase = 'aggregating') AS aggregating,
    count(*) FILTER (WHERE phase = 'archiving') AS archiving,
    count(*) FILTER (WHERE phase = 'purging') AS purging
FROM (
    (SELECT CASE WHEN aggregated_at IS NULL OR late_parts THEN 'aggregating' ELSE 'archiving' END,
        CASE WHEN aggregated_at IS NULL OR late_parts THEN (
            SELECT created_at + make_interval(secs => CASE WHEN final THEN 0 ELSE $1 END)
            FROM last_part(id)
        ) ELSE aggregated_at END
    FROM logs WHERE (NOT archive_verified OR late_parts) AND NOT empty ORDER BY id LIMIT $4)
    UNION ALL
    (SELECT 'purging', greatest(archived_at + make_interval(secs => $2), archive_settles_at)
    FROM pending_rows WHERE archive_verified AND NOT late_parts AND purged_at IS NULL
    ORDER BY id LIMIT $4)
) l (phase, since)
WHERE since < now() - make_interval(secs => $3)
"""


class OverdueLogs(msgspec.Struct, frozen=True):
    """How many logs have been due for a step for more than half an hour."""

    aggregating: int
    archiving: int
    purging: int


class DatabaseStats(msgspec.Struct, frozen=True):
    """The database as it is now.

    `oldest_unarchived_seconds`: age of the oldest log that is not archived and verified, 0 if there
    is none. `oldest_pending_deletion_seconds`: since the oldest text was removed that the archive
    still holds, 0 if there is none. `partitions_ahead`: partitions that begin in the future.
    `default_partition_parts`: parts in the default partition, counted up to 10,000.
    `stale_only_logs`: logs without text that got stale parts within an hour. Both are 0 under
    maintenance.
    """

    oldest_unarchived_seconds: float
    oldest_pending_deletion_seconds: float
    is_under_maintenance: bool
    partitions_ahead: int
    default_partition_parts: int
    stale_only_logs: int


async def read_stats(connection: Connection) -> DatabaseStats:
    """Read the statistics; under maintenance, only those that wait for no operator's lock."""
    is_under_maintenance = await connection.fetchval(IS_UNDER_MAINTENANCE)
    found = await partitions(connection)
    strays = stale_only = 0
    if not is_under_maintenance:
        strays = await connection.fetchval(COUNT_PARTS, found.default, MOST_COUNTED)
        stale_only = await connection.fetchval(STALE_ONLY)
    return DatabaseStats(
        oldest_unarchived_seconds=await connection.fetchval(OLDEST_UNARCHIVED, EXAMINED),
        oldest_pending_deletion_seconds=await connection.fetchval(OLDEST_PENDING_DELETION),
        is_under_maintenance=is_under_maintenance,
        partitions_ahead=sum(partition.begin > found.now for partition in found.ranges),
        default_partition_parts=strays,
        stale_only_logs=stale_only,
    )


async def count_overdue(
    connection: Connection, idle_timeout_seconds: float, purge_seconds: float
) -> OverdueLogs:
    """Count overdue logs among the oldest 1000 unarchived and the oldest 1000 unpurged ones."""
    row = await connection.fetchrow(
        OVERDUE, idle_timeout_seconds, purge_seconds, OVERDUE_SECONDS, MOST_EXAMINED
    )
    return OverdueLogs(**row)  # type: ignore[arg-type]
