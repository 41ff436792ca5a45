"""Finds logs with work left: an archive, a purge, or a pending deletion."""

from collections.abc import Sequence
from datetime import datetime

import msgspec

from db.connect import Connection

FIND = "SELECT * FROM pending_logs($1, $2, $3) ORDER BY id LIMIT $4"
LOCK = "SELECT FROM logs WHERE job_id = ANY ($1) ORDER BY id FOR NO KEY UPDATE"
# A separate statement: it sees what was committed while LOCK waited.
MARK_EMPTY = """
UPDATE logs SET empty = true
WHERE id IN (SELECT id FROM bare_logs WHERE job_id = ANY ($1))
    AND ($2 OR archive_settles_at IS NULL) RETURNING id
"""


class PendingLog(msgspec.Struct, frozen=True):
    """A log with work left.

    `outdated`: a deletion from the archive is pending. `ended`: its final part is stored, and it
    was never aggregated. `heard_at`: its last write. `archived_at`: when it was verified. `bare`:
    it has neither parts nor content, so that there is nothing to do after all.
    """

    id: int
    job_id: int
    outdated: bool
    ended: bool
    heard_at: datetime
    archived_at: datetime | None
    bare: bool


async def find_pending(
    connection: Connection, after: int, quiet_seconds: float, purge_seconds: float, count: int
) -> list[PendingLog]:
    """List at most `count` logs with log ids above `after`, ordered by id.

    Only logs without a write for `quiet_seconds`; verified ones only if their purge, due
    `purge_seconds` after the verification, is that much overdue.
    """
    rows = await connection.fetch(FIND, after, quiet_seconds, purge_seconds, count)
    return [PendingLog(**row) for row in rows]


async def mark_empty(connection: Connection, job_id: int) -> bool:
    """Mark a log without parts as empty: no work is left until some arrive. False if it has any."""
    return bool(await mark_all_empty(connection, [job_id], deleted=False))


async def mark_all_empty(
    connection: Connection, job_ids: Sequence[int], *, deleted: bool
) -> list[int]:
    """Mark those of these jobs' logs that have no parts as empty; returns their log ids.

    Logs whose archive must be checked again are not, unless they were `deleted` by retention: their
    uploads ended days ago.
    """
    async with connection.transaction():
        await connection.execute(LOCK, job_ids)
        return [row["id"] for row in await connection.fetch(MARK_EMPTY, job_ids, deleted)]
