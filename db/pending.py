"""Finding the logs that something is owed to: an archive, a purge, the deletion of removed text."""

from collections.abc import Sequence
from datetime import datetime

import msgspec

from db.connect import Connection

# As the index `logs_unfinished` has it.
UNFINISHED = "(l.purged_at IS NULL OR l.late_parts OR l.archive_outdated) AND NOT l.empty"
# The part that is last by its key is nearly always the newest: one look into the index for each.
COLUMNS = """
    l.id, l.job_id, coalesce(p.created_at, l.updated_at) AS heard_at, l.archived_at,
    p.created_at IS NULL AND l.aggregated_at IS NULL AND NOT l.archive_outdated AS bare
"""
LOGS = """
logs l
LEFT JOIN LATERAL (
    SELECT created_at, final FROM log_parts WHERE log_id = l.id
    ORDER BY attempt_id DESC, number DESC, created_at DESC LIMIT 1
) p ON true
"""
# A verified log is owed nothing until its purge is due.
OWED = f"""
{UNFINISHED}
    AND l.id > $1
    AND l.updated_at < now() - make_interval(secs => $2)
    AND (NOT l.archive_verified OR l.late_parts OR l.archive_outdated
        OR l.archived_at < now() - make_interval(secs => $2 + $3))
    AND coalesce(p.created_at < now() - make_interval(secs => $2), true)
"""
FIND = f"""
SELECT {COLUMNS}, l.archive_outdated AS outdated,
    p.final IS TRUE AND l.aggregated_at IS NULL AS ended
FROM {LOGS} WHERE {OWED} ORDER BY l.id LIMIT $4
"""
LOCK = "SELECT FROM logs WHERE job_id = ANY ($1) ORDER BY id FOR NO KEY UPDATE"
NOTHING_THERE = """
    l.aggregated_at IS NULL AND NOT l.archive_outdated
    AND NOT EXISTS (SELECT FROM log_parts WHERE log_id = l.id)
    AND NOT EXISTS (
        SELECT FROM log_attempts
        WHERE log_id = l.id AND closed_at IS NULL AND began_at IS NOT NULL
    )
"""
# A statement of its own: it sees what was committed while we waited for the lock.
MARK_EMPTY = f"""
UPDATE logs l SET empty = true WHERE job_id = ANY ($1) AND {NOTHING_THERE}
RETURNING id
"""


class Unfinished(msgspec.Struct, frozen=True):
    """A log that something is owed to.

    `outdated`: removed text must go from the archive. `ended`: its final part is there, and it was
    never aggregated. `heard_at`: when it was last written to.
    `archived_at`: when it was verified, if it was. `bare`: it has neither parts nor content, so
    that nothing is owed after all.
    """

    id: int
    job_id: int
    outdated: bool
    ended: bool
    heard_at: datetime
    archived_at: datetime | None
    bare: bool


async def find_unfinished(
    connection: Connection, after: int, quiet_seconds: float, purge_seconds: float, count: int
) -> list[Unfinished]:
    """List at most `count` logs with ids above `after`, in their order.

    Only those that nothing was written to for `quiet_seconds`; of verified ones those whose purge,
    `purge_seconds` after the verification, is overdue by as much.
    """
    rows = await connection.fetch(FIND, after, quiet_seconds, purge_seconds, count)
    return [Unfinished(**row) for row in rows]


async def mark_empty(connection: Connection, job_id: int) -> bool:
    """Mark a log without parts as owed nothing, until some come; False where it has some."""
    return bool(await mark_all_empty(connection, [job_id]))


async def mark_all_empty(connection: Connection, job_ids: Sequence[int]) -> list[int]:
    """Mark those of these jobs' logs that have no parts; returns their own ids."""
    async with connection.transaction():
        await connection.execute(LOCK, job_ids)
        return [row["id"] for row in await connection.fetch(MARK_EMPTY, job_ids)]
