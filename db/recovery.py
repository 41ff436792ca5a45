"""Reconciliation with the archive: reads rows to compare, and adopts archived logs into rows."""

from collections.abc import Collection, Sequence
from datetime import datetime

import msgspec

from db import timings
from db.connect import Connection
from db.holds import check_holds
from db.logs import LOCK_ATTEMPTS, LOCK_WHOLE, MAKE_LOGS, delete_text
from db.maintenance import check_writing
from db.notify import announce
from logflume.domain import WHOLE, Origin
from logflume.markers import Step

PAGE = """
SELECT l.job_id, l.updated_at, l.uploads, l.generation, l.archive_verified AS verified,
    l.archive_outdated AS outdated, l.content_bytes AS bytes,
    encode(l.content_sha256, 'hex') AS sha256,
    l.aggregated_at IS NOT NULL OR EXISTS (SELECT FROM log_parts WHERE log_id = l.id) AS has_text,
    l.archive_outdated_at AS cleared_at
FROM logs l WHERE l.job_id BETWEEN $1 AND $2 ORDER BY l.job_id LIMIT $3
"""
CAN_MAKE = """
SELECT content IS NOT NULL
    OR EXISTS (SELECT FROM log_parts WHERE log_id = l.id AND created_at = l.parts_since)
FROM logs l WHERE job_id = $1
"""
LABEL = """
SELECT part_count, uploads AS upload, generation,
    (SELECT uuid FROM log_attempts WHERE id = content_attempt_id) AS attempt,
    (SELECT began_at::text FROM log_attempts WHERE id = content_attempt_id) AS began_at,
    content_runs::text AS runs
FROM logs WHERE job_id = $1 AND content_sha256 = decode($2, 'hex') AND archive_verified
"""
# If the parts of the content were dropped, only one attempt of the log can be counted, and only if
# nothing was cut off.
COUNT_STORED = """
SELECT CASE
    WHEN expired_at IS NOT NULL THEN NULL
    WHEN aggregated_at IS NULL
        OR EXISTS (SELECT FROM log_parts WHERE log_id = l.id AND created_at = l.parts_since)
    THEN (SELECT count(*) FROM log_parts WHERE log_id = l.id AND number <> number_whole())
    WHEN left_out_bytes IS NULL AND NOT EXISTS (
        SELECT FROM log_attempts a
        WHERE a.log_id = l.id AND a.closed_at IS NULL AND a.began_at IS NOT NULL
            AND a.id IS DISTINCT FROM l.content_attempt_id
    )
    THEN part_count - (SELECT count(*) FROM unnest(content_runs) WHERE first = number_whole())
        + (SELECT count(*) FROM merged_parts(l.id, content_attempt_id) WHERE is_new AND first >= 0)
END
FROM logs l WHERE job_id = $1
"""

KNOWN = "SELECT id, uploads, generation FROM logs WHERE job_id = $1"
# An attempt that begins at infinity remains the log. It stands for content of unknown composition,
# as that of logs imported from an archive.
MAKE_ATTEMPT = """
INSERT INTO log_attempts AS a (log_id, uuid, began_at)
SELECT $1, $2, $3::text::timestamptz WHERE $2::text IS NOT NULL
ON CONFLICT (log_id, uuid) DO UPDATE SET began_at = CASE WHEN excluded.began_at = 'infinity'
    THEN excluded.began_at ELSE least(a.began_at, excluded.began_at) END
RETURNING id
"""
# No part was received at the epoch, so the parts of the content count as dropped.
ADOPT = """
UPDATE logs SET
    content = NULL, content_bytes = $2, content_sha256 = decode($3, 'hex'),
    content_attempt_id = $4, part_count = $5, content_runs = $6::text::content_run[],
    missing_parts = (
        SELECT coalesce(max(last) + 1 - sum(last - first + 1), 0)
        FROM unnest($6::text::content_run[]) WHERE first BETWEEN 0 AND number_last() - 1
    ),
    complete = NULL,
    parts_since = 'epoch', late_parts = false, aggregated_at = now(), archiving = false,
    archived_at = now(), archive_verified = true, archive_outdated = false, purged_at = now(),
    empty = false, expired_at = NULL, step_count = $7, uploads = $8, generation = $9,
    created_at = least(created_at, $10), updated_at = now()
WHERE id = $1
"""
# Parts that the archived content lacks are late ones, or another attempt is the log.
NOTE_LATE = """
UPDATE logs l SET late_parts = true
WHERE id = $1 AND content_runs IS NOT NULL
    AND EXISTS (SELECT FROM merged_parts(id, content_attempt_id) WHERE is_new)
"""
NOTE_ANOTHER = """
UPDATE logs l SET aggregated_at = NULL, archived_at = NULL, archive_verified = false,
    purged_at = NULL, late_parts = false
WHERE id = $1 AND content_runs IS NOT NULL AND content_attempt_id IS DISTINCT FROM log_attempt(id)
"""
ADD_PENDING_DELETION = """
UPDATE logs l SET archive_outdated = true, archive_outdated_at = now(), empty = false,
    updated_at = now()
WHERE job_id = $1 AND uploads >= $2 AND aggregated_at IS NULL
    AND NOT EXISTS (SELECT FROM log_parts WHERE log_id = l.id)
"""
HELD = "SELECT l.job_id FROM log_holds h JOIN logs l ON l.id = h.log_id WHERE l.job_id = ANY ($1)"
HELD_ARCHIVED = """
SELECT l.job_id FROM log_holds h JOIN logs l ON l.id = h.log_id
WHERE l.archive_verified ORDER BY l.job_id
"""


class Row(msgspec.Struct, frozen=True):
    """What the database knows about a log; SHA-256 in hex.

    `uploads`: the number of uploads it started. `outdated`: a deletion from the archive is pending.
    `has_text`: it has content, here or in the archive, or parts. `cleared_at`: when its text was
    last deleted or replaced as a whole.
    """

    job_id: int
    updated_at: datetime
    uploads: int
    generation: int
    verified: bool
    outdated: bool
    bytes: int | None
    sha256: str | None
    has_text: bool
    cleared_at: datetime | None


class Archived(msgspec.Struct, frozen=True):
    """An archived object that was read completely, with its metadata; SHA-256 in hex."""

    job_id: int
    bytes: int
    sha256: str
    parts: int | None
    origin: Origin
    changed_at: datetime
    steps: Sequence[Step]


async def page(connection: Connection, first: int, last: int, count: int) -> list[Row]:
    """Read the rows of at most `count` jobs from `first` to `last`."""
    return [Row(**row) for row in await connection.fetch(PAGE, first, last, count)]


async def find(connection: Connection, job_id: int) -> Row | None:
    """Read the row of a job's log; None if the job has none."""
    rows = await page(connection, job_id, job_id, 1)
    return rows[0] if rows else None


async def can_make(connection: Connection, job_id: int) -> bool:
    """Whether a log's content is in its row, or can be aggregated from all of its parts."""
    return bool(await connection.fetchval(CAN_MAKE, job_id))


async def label(connection: Connection, job_id: int, sha256: str) -> tuple[int, Origin] | None:
    """Read the part count and origin for a log's object; None if it has other content by now."""
    row = await connection.fetchrow(LABEL, job_id, sha256)
    if row is None:
        return None
    parts, *origin = row
    return parts or 0, Origin(*origin)


async def count_stored(connection: Connection, job_id: int) -> int | None:
    """Count the parts of a log that exist, here or in its content; None if that is unknown."""
    count: int | None = await connection.fetchval(COUNT_STORED, job_id)
    return count


async def adopt(connection: Connection, found: Archived) -> bool:
    """Set a log's row to its state when its object was archived; False if it knows the upload.

    Stored parts that the content lacks become late parts; if the object does not say what it
    consists of, all stored parts are ignored. If content was written whole after the restore point,
    the text stored here is deleted, as it was then.

    Raises:
        UnderHold: text would be deleted, but the log is under legal hold.
        UnderMaintenance: maintenance is on.
    """
    origin = found.origin
    async with connection.transaction():
        await check_writing(connection)
        inserted = await connection.execute(MAKE_LOGS, [found.job_id])
        await connection.fetch(LOCK_WHOLE, [found.job_id])
        row = await connection.fetchrow(KNOWN, found.job_id)
        assert row  # noqa: S101 - it is locked
        if row["uploads"] >= origin.upload and inserted == "INSERT 0 0":
            return False
        if origin.generation > row["generation"]:
            await check_holds(connection, [row["id"]])
            await delete_text(connection, [row["id"]])
        await connection.execute(LOCK_ATTEMPTS, [row["id"]])
        run = (origin.attempt, origin.began_at) if origin.runs else ("", "infinity")
        attempt_id = await connection.fetchval(MAKE_ATTEMPT, row["id"], *run)
        await connection.execute(
            ADOPT, row["id"], found.bytes, found.sha256, attempt_id, found.parts, origin.runs,
            len(found.steps), origin.upload, max(origin.generation, row["generation"]),
            found.changed_at,
        )  # fmt: skip
        await timings.replace(connection, row["id"], found.steps)
        await connection.execute(NOTE_LATE, row["id"])
        await connection.execute(NOTE_ANOTHER, row["id"])
        await announce(connection, {found.job_id: WHOLE})
    return True


async def add_pending_deletion(connection: Connection, job_id: int, upload: int) -> bool:
    """Record that the archived object of a log without text, from this upload, must be deleted.

    False if the log has text by now; then nothing is recorded.
    """
    return await connection.execute(ADD_PENDING_DELETION, job_id, upload) == "UPDATE 1"


async def held(connection: Connection, job_ids: Collection[int]) -> set[int]:
    """Return those of these jobs whose logs are under legal hold."""
    return {row["job_id"] for row in await connection.fetch(HELD, list(job_ids))}


async def held_archived(connection: Connection) -> list[int]:
    """List the jobs whose logs are under legal hold and archived."""
    return [row["job_id"] for row in await connection.fetch(HELD_ARCHIVED)]
