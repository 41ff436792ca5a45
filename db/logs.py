"""Writing a log's row: the archive's marks, the purge, content written whole.

Content written whole locks the log's row before it looks at its parts, as aggregation does.
"""

from collections.abc import Sequence
from typing import NamedTuple

from db import timings
from db.connect import Connection
from db.holds import check_holds
from db.maintenance import check_writing
from db.notify import announce
from db.reading import LOG_COLUMNS
from logflume.domain import WHOLE, Log, Origin
from logflume.errors import ArchiveAhead, ContentReplaced
from logflume.markers import Step

# Also waits for drains that are making attempts, which refer to the row.
LOCK_WHOLE = "SELECT id, job_id FROM logs WHERE job_id = ANY ($1) ORDER BY id FOR UPDATE"

# Of a job's object, held by whoever deletes it apart from the log's workflow: nothing is put there.
ARCHIVE_LOCK = "7001002, (job_id % 2147483647)::integer"
# A workflow that was reset may ask for what was purged since: only the archive holds it now.
MARK_ARCHIVING = f"""
WITH waited AS MATERIALIZED (
    SELECT pg_advisory_xact_lock_shared({ARCHIVE_LOCK}) FROM (SELECT $1::bigint AS job_id) i
)
UPDATE logs SET archiving = true, archived_at = NULL, archive_verified = false, updated_at = now(),
    uploads = greatest(uploads, $3) + 1
FROM waited
WHERE job_id = $1 AND content_sha256 = decode($2, 'hex') AND aggregated_at IS NOT NULL
    AND purged_at IS NULL AND (uploads >= $3 OR $4)
RETURNING id, uploads, generation,
    (SELECT uuid FROM log_attempts WHERE id = content_attempt_id),
    (SELECT began_at::text FROM log_attempts WHERE id = content_attempt_id), content_runs::text
"""
IS_AHEAD = """
SELECT uploads < $3 FROM logs WHERE job_id = $1 AND content_sha256 = decode($2, 'hex')
"""
MARK_VERIFIED = """
UPDATE logs
SET archiving = false, archived_at = now(), archive_verified = true, updated_at = now(),
    step_count = $3
WHERE job_id = $1 AND content_sha256 = decode($2, 'hex') AND aggregated_at IS NOT NULL
RETURNING id, missing_parts,
    EXISTS (SELECT FROM maintenance WHERE until > now()) AS is_under_maintenance
"""
# The part that is last by its key is nearly always the one that ended the log.
SINCE_LAST_PART = """
SELECT extract(epoch FROM now() - created_at)::float8 FROM log_parts WHERE log_id = $1
ORDER BY attempt_id DESC, number DESC, created_at DESC LIMIT 1
"""
# Parts that were committed while the content was made may be in neither it nor `late_parts`. Where
# some it was made of are gone, a count of those there would not tell; if it was cut, it is full.
PURGE = """
UPDATE logs l SET content = NULL, purged_at = now(), updated_at = now()
WHERE job_id = $1 AND content_sha256 = decode($2, 'hex') AND archive_verified
    AND CASE WHEN content_runs IS NULL AND left_out_bytes IS NULL
            OR EXISTS (SELECT FROM log_parts WHERE log_id = l.id AND created_at = l.parts_since)
        THEN (SELECT count(*) FROM content_parts(l.id, l.content_attempt_id)) <= l.part_count
        ELSE left_out_bytes IS NOT NULL
            OR NOT EXISTS (SELECT FROM merged_parts(l.id, l.content_attempt_id) WHERE is_new) END
RETURNING id
"""

MAKE_LOGS = """
INSERT INTO logs (job_id) SELECT DISTINCT j FROM unnest($1::bigint[]) j ORDER BY j
ON CONFLICT DO NOTHING
"""
MAKE_UNNAMED = """
INSERT INTO log_attempts (log_id, uuid) SELECT l, '' FROM unnest($1::bigint[]) l ORDER BY l
ON CONFLICT DO NOTHING
"""
LOCK_ATTEMPTS = "SELECT FROM log_attempts WHERE log_id = ANY ($1) ORDER BY id FOR UPDATE"
DELETE_PARTS = "DELETE FROM log_parts WHERE log_id = ANY ($1)"
CLOSE_ATTEMPTS = """
UPDATE log_attempts
SET closed_at = CASE WHEN uuid = '' THEN NULL ELSE coalesce(closed_at, now()) END,
    began_at = CASE WHEN uuid = '' THEN NULL ELSE began_at END
WHERE log_id = ANY ($1)
"""
WRITE_WHOLE = """
INSERT INTO log_parts (log_id, attempt_id, created_at, number, final, content)
SELECT log_id, id, clock_timestamp(), -1, false, $2 FROM log_attempts
WHERE log_id = $1 AND uuid = ''
"""
# Of a log whose text goes; the archive owes the deletion of what it has of it.
NOTHING_MADE = """
    content = NULL, content_bytes = NULL, content_sha256 = NULL, content_attempt_id = NULL,
    part_count = NULL, missing_parts = NULL, parts_since = NULL, content_runs = NULL,
    late_parts = false, aggregated_at = NULL, archiving = false, archived_at = NULL,
    archive_verified = false, archive_outdated = true, purged_at = NULL, empty = false,
    step_count = NULL, left_out_bytes = NULL, generation = generation + 1, updated_at = now()
"""
RESET = f"""
UPDATE logs
SET {NOTHING_MADE}, expired_at = NULL,
    removed_at = CASE WHEN $2::bigint IS NULL THEN NULL ELSE now() END, removed_by = $2
WHERE id = $1
RETURNING {LOG_COLUMNS}
"""

OWES_DELETION = "SELECT uploads FROM logs WHERE job_id = $1 AND archive_outdated"
MARK_ARCHIVE_DELETED = "UPDATE logs SET archive_outdated = false WHERE job_id = $1"


class WholeContent(NamedTuple):
    """The bytes a job's log is to be, and by whom what it was is removed (None: by nobody)."""

    job_id: int
    content: bytes
    removed_by: int | None = None


class Archiving(NamedTuple):
    """A log whose content is on its way to the archive, by its own id."""

    log_id: int
    origin: Origin


class Verified(NamedTuple):
    """A log that the archive was found to hold.

    `missing_parts`: numbers that its content lacks. `seconds`: since its last part came; None
    where that cannot be looked at: parts are gone, or an operator keeps everyone away from them.
    """

    missing_parts: int
    seconds: float | None


async def mark_archiving(
    connection: Connection, job_id: int, sha256: str, *, there: int = 0, same: bool = False
) -> Archiving:
    """Note that the content with this SHA-256 is on its way to the archive.

    `there`: which upload made the object that is there now; `same`: it is of this very content.

    Raises:
        ContentReplaced: the log has other content by now, or it was purged.
        ArchiveAhead: the row knows nothing of that upload, which would be lost.
    """
    row = await connection.fetchrow(MARK_ARCHIVING, job_id, sha256, there, same)
    if row is not None:
        log_id, *origin = row.values()
        return Archiving(log_id, Origin(*origin))
    if not same and await connection.fetchval(IS_AHEAD, job_id, sha256, there):
        raise ArchiveAhead(
            f"job {job_id}: its object is of upload {there}, which its row knows nothing of: the "
            "database is an older copy; run `logflume reconcile`"
        )
    raise ContentReplaced(f"the row of job {job_id} no longer has content {sha256[:12]}")


async def mark_verified(
    connection: Connection, job_id: int, sha256: str, steps: Sequence[Step] | None = None
) -> Verified | None:
    """Note that the archive holds the content with this SHA-256; None where it was replaced.

    With it the timed steps that it tells of; None: nobody looked for them.
    """
    count = None if steps is None else len(steps)
    async with connection.transaction():
        row = await connection.fetchrow(MARK_VERIFIED, job_id, sha256, count)
        if row is None:
            return None
        await timings.replace(connection, row["id"], steps or ())
    seconds = None
    if not row["is_under_maintenance"]:
        seconds = await connection.fetchval(SINCE_LAST_PART, row["id"])
    return Verified(row["missing_parts"] or 0, seconds)


async def purge(connection: Connection, job_id: int, sha256: str) -> bool:
    """Clear content that is archived and verified under this SHA-256.

    False where it is not, or where the log has parts by now that are not in it.

    Raises:
        asyncpg.LockNotAvailableError: a flush of the log is under way: nobody sees its parts yet.
    """
    async with connection.transaction():
        log_ids = [row["id"] for row in await connection.fetch(LOCK_WHOLE, [job_id])]
        # Its flushes hold their attempts. Who waited for them would make others wait for the row.
        await connection.execute(f"{LOCK_ATTEMPTS} NOWAIT", log_ids)
        return await connection.fetchval(PURGE, job_id, sha256) is not None


async def replace_contents(connection: Connection, wholes: Sequence[WholeContent]) -> list[Log]:
    """Write the contents of logs whole, all of them or none; of several for one job the last.

    A log's parts are gone and the attempts seen until now are closed. Empty content clears the
    log; what is there counts as a part before number 0. Returns the rows as they are now.

    Raises:
        UnderHold: one of them is under legal hold.
        UnderMaintenance: an operator keeps everyone away from parts.
    """
    by_job = {whole.job_id: whole for whole in wholes}
    async with connection.transaction():
        await check_writing(connection)
        # All rows of logs, then all of attempts, each by id: the order of everyone who locks both.
        await connection.execute(MAKE_LOGS, [*by_job])
        locked = await connection.fetch(LOCK_WHOLE, [*by_job])
        log_ids = [row["id"] for row in locked]
        await check_holds(connection, log_ids)
        await connection.execute(MAKE_UNNAMED, log_ids)
        await delete_text(connection, log_ids)
        return [await _replace(connection, row["id"], by_job[row["job_id"]]) for row in locked]


async def delete_text(connection: Connection, log_ids: Sequence[int]) -> None:
    """Delete the parts and steps of locked logs, and close the attempts seen until now."""
    await connection.execute(LOCK_ATTEMPTS, log_ids)
    await connection.execute(DELETE_PARTS, log_ids)
    await timings.delete(connection, log_ids)
    await connection.execute(CLOSE_ATTEMPTS, log_ids)


async def _replace(connection: Connection, log_id: int, whole: WholeContent) -> Log:
    if whole.content:
        await connection.execute(WRITE_WHOLE, log_id, whole.content)
    row = await connection.fetchrow(RESET, log_id, whole.removed_by)
    assert row  # noqa: S101 - the row is locked
    await announce(connection, {whole.job_id: WHOLE})
    return Log(**row)


async def owes_deletion(connection: Connection, job_id: int) -> int | None:
    """Up to which upload the archive may still hold what is to go; None where nothing is owed."""
    uploads: int | None = await connection.fetchval(OWES_DELETION, job_id)
    return uploads


async def mark_archive_deleted(connection: Connection, job_id: int) -> None:
    """Note that the archive no longer holds what was there before content was written whole."""
    await connection.execute(MARK_ARCHIVE_DELETED, job_id)
