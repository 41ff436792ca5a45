"""Writes logs: their state in the archive, the purge, and content written whole.

Writing content whole locks the log's row before it reads parts, as aggregation does.
"""

from collections.abc import Sequence
from typing import NamedTuple

from db import timings
from db.connect import Connection
from db.holds import check_holds
from db.maintenance import check_writing
from db.notify import announce
from logflume.domain import WHOLE, Log, Origin
from logflume.errors import ArchiveAhead, ContentReplaced
from logflume.markers import Step

# Also waits for drains that insert attempts, which reference the row.
LOCK_WHOLE = "SELECT id, job_id FROM logs WHERE job_id = ANY ($1) ORDER BY id FOR UPDATE"

# Waits for a deletion of the object. A reset workflow may ask for content that was purged since:
# only the archive holds it now.
MARK_ARCHIVING = """
WITH waited AS MATERIALIZED (SELECT lock_archived_object($1, true))
UPDATE logs SET archiving = true, archived_at = NULL, archive_verified = false, updated_at = now(),
    uploads = greatest(uploads, $3) + 1
FROM waited
WHERE job_id = $1 AND content_sha256 = decode($2, 'hex') AND aggregated_at IS NOT NULL
    AND purged_at IS NULL AND (uploads >= $3 OR $4)
RETURNING id, uploads AS upload, generation,
    (SELECT uuid FROM log_attempts WHERE id = content_attempt_id) AS attempt,
    (SELECT began_at::text FROM log_attempts WHERE id = content_attempt_id) AS began_at,
    content_runs::text AS runs
"""
IS_AHEAD = """
SELECT uploads < $3 FROM logs WHERE job_id = $1 AND content_sha256 = decode($2, 'hex')
"""
MARK_VERIFIED = """
UPDATE logs
SET archiving = false, archived_at = now(), archive_verified = true, updated_at = now(),
    step_count = $3, archive_settles_at = CASE WHEN $4::float8 IS NULL THEN archive_settles_at
        ELSE greatest(archive_settles_at, now() + make_interval(secs => $4)) END
WHERE job_id = $1 AND content_sha256 = decode($2, 'hex') AND aggregated_at IS NOT NULL
RETURNING id, missing_parts, complete,
    extract(epoch FROM archive_settles_at - now())::float8 AS settles,
    EXISTS (SELECT FROM maintenance WHERE until > now()) AS is_under_maintenance
"""
SINCE_LAST_PART = "SELECT extract(epoch FROM now() - created_at)::float8 FROM last_part($1)"
MARK_SETTLED = """
UPDATE logs SET archive_settles_at = NULL
WHERE job_id = $1 AND content_sha256 = decode($2, 'hex') AND archive_verified
"""
MARK_UNVERIFIED = """
UPDATE logs SET archived_at = NULL, archive_verified = false, updated_at = now()
WHERE job_id = $1 AND content_sha256 = decode($2, 'hex') AND purged_at IS NULL
"""
# Parts committed during the aggregation may be neither in the content nor recorded as late. If some
# parts were dropped, their count says nothing; cut content has no room for more.
PURGE = """
UPDATE logs l SET content = NULL, purged_at = now(), updated_at = now()
WHERE job_id = $1 AND content_sha256 = decode($2, 'hex') AND archive_verified
    AND archive_settles_at IS NULL
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
LOCK_FREE_ATTEMPTS = """
SELECT FROM log_attempts WHERE log_id = ANY ($1) ORDER BY id FOR UPDATE NOWAIT
"""
DELETE_PARTS = "DELETE FROM log_parts WHERE log_id = ANY ($1)"
CLOSE_ATTEMPTS = """
UPDATE log_attempts
SET closed_at = CASE WHEN uuid = '' THEN NULL ELSE now() END,
    total_parts = NULL, total_bytes = NULL, total_sha256 = NULL,
    began_at = CASE WHEN uuid = '' THEN NULL ELSE began_at END
WHERE log_id = ANY ($1)
"""
WRITE_WHOLE = """
INSERT INTO log_parts (log_id, attempt_id, created_at, number, final, content)
SELECT log_id, id, clock_timestamp(), number_whole(), false, $2 FROM log_attempts
WHERE log_id = $1 AND uuid = ''
"""
# Records a pending deletion of what the archive holds. $2: the log expired; otherwise content was
# written whole, and if $3 is not null, it replaces text that this user removed.
CLEAR = """
UPDATE logs SET
    content = NULL, content_bytes = NULL, content_sha256 = NULL, content_attempt_id = NULL,
    part_count = NULL, missing_parts = NULL, parts_since = NULL, content_runs = NULL,
    complete = NULL,
    late_parts = false, aggregated_at = NULL, archiving = false, archived_at = NULL,
    archive_verified = false, archive_outdated = true,
    archive_outdated_at = CASE WHEN archive_outdated THEN archive_outdated_at ELSE now() END,
    purged_at = NULL, empty = false, step_count = NULL, left_out_bytes = NULL,
    generation = generation + 1, updated_at = now(),
    expired_at = CASE WHEN $2 THEN now() END,
    removed_at = CASE WHEN $2 THEN removed_at WHEN $3::bigint IS NOT NULL THEN now() END,
    removed_by = CASE WHEN $2 THEN removed_by ELSE $3::bigint END
WHERE id = ANY ($1)
"""
READ = "SELECT * FROM log_rows WHERE id = $1"

UPLOADS = "SELECT uploads FROM logs WHERE job_id = $1"
WITHDRAW_UPLOAD = """
UPDATE logs SET uploads = uploads - 1 WHERE job_id = $1 AND uploads = $2 RETURNING id
"""
PENDING_DELETION = """
SELECT uploads FROM logs WHERE job_id = $1
    AND (archive_outdated OR (archive_settles_at <= now() AND aggregated_at IS NULL))
"""
# Checked again later, unless this was that check and found nothing, or nothing was ever uploaded.
MARK_ARCHIVE_DELETED = """
UPDATE logs SET archive_outdated = false,
    archive_settles_at = CASE WHEN $2 OR (archive_outdated AND uploads > 0)
        THEN greatest(archive_settles_at, now() + make_interval(secs => $3)) END
WHERE job_id = $1
"""


class WholeContent(NamedTuple):
    """New whole content of a job's log; `removed_by`: the user who thereby removed the old text."""

    job_id: int
    content: bytes
    removed_by: int | None = None


class Archiving(NamedTuple):
    """A log whose upload may start, by log id."""

    log_id: int
    origin: Origin


class Verified(NamedTuple):
    """A log whose archived object was read back and found equal.

    `missing_parts`: numbers missing in its content. `complete`: as in `Log`. `seconds`: since its
    last part arrived; None if its parts were dropped or maintenance is on. `settles_seconds`: until
    no earlier request can change the object; None if no check of it is due.
    """

    missing_parts: int
    complete: bool | None
    seconds: float | None
    settles_seconds: float | None


async def mark_archiving(
    connection: Connection, job_id: int, sha256: str, *, there: int = 0, same: bool = False
) -> Archiving:
    """Record that an upload of the content with this SHA-256 starts.

    `there`: the upload that wrote the object now in the archive; `same`: it has this content.

    Raises:
        ContentReplaced: the log has other content by now, or it was purged.
        ArchiveAhead: the row does not know that upload, so its object must not be overwritten.
    """
    row = await connection.fetchrow(MARK_ARCHIVING, job_id, sha256, there, same)
    if row is not None:
        columns = dict(row)
        return Archiving(columns.pop("id"), Origin(**columns))
    if not same and await connection.fetchval(IS_AHEAD, job_id, sha256, there):
        raise ahead(job_id, there)
    raise ContentReplaced(
        f"job {job_id}: its content with SHA-256 {sha256[:12]} was replaced or purged"
    )


def ahead(job_id: int, there: int) -> ArchiveAhead:
    """The error for an archived object from an upload that the row does not know."""
    return ArchiveAhead(
        f"job {job_id}: the archived object is from upload {there}, which the database does "
        "not know: it was restored to an earlier time; run `logflume reconcile`"
    )


async def uploads(connection: Connection, job_id: int) -> int:
    """Return how many uploads of the log were started."""
    return await connection.fetchval(UPLOADS, job_id) or 0


async def withdraw_upload(connection: Connection, job_id: int, upload: int) -> bool:
    """Forget an upload that wrote nothing; False if another one was started since."""
    return await connection.fetchval(WITHDRAW_UPLOAD, job_id, upload) is not None


async def mark_verified(
    connection: Connection,
    job_id: int,
    sha256: str,
    steps: Sequence[Step] | None = None,
    settles_seconds: float | None = None,
) -> Verified | None:
    """Record that the archive holds the content with this SHA-256.

    Returns None if the content was replaced meanwhile. `steps`: the timed steps found in it; None
    if it was not searched. `settles_seconds`: for which earlier requests may still change the
    object; None if the store's conditions prevent it.
    """
    count = None if steps is None else len(steps)
    async with connection.transaction():
        row = await connection.fetchrow(MARK_VERIFIED, job_id, sha256, count, settles_seconds)
        if row is None:
            return None
        await timings.replace(connection, row["id"], steps or ())
    seconds = None
    if not row["is_under_maintenance"]:
        seconds = await connection.fetchval(SINCE_LAST_PART, row["id"])
    return Verified(row["missing_parts"] or 0, row["complete"], seconds, row["settles"])


async def mark_settled(connection: Connection, job_id: int, sha256: str) -> None:
    """Record that no earlier request can change the archived object any more."""
    await connection.execute(MARK_SETTLED, job_id, sha256)


async def mark_unverified(connection: Connection, job_id: int, sha256: str) -> None:
    """Record that the archive no longer holds the content with this SHA-256."""
    await connection.execute(MARK_UNVERIFIED, job_id, sha256)


async def purge(connection: Connection, job_id: int, sha256: str) -> bool:
    """Clear content that is archived and verified under this SHA-256.

    False if it is not, or if the log has parts by now that the content lacks.

    Raises:
        asyncpg.LockNotAvailableError: a flush of the log is in progress; its parts are not visible
            yet.
    """
    async with connection.transaction():
        log_ids = [row["id"] for row in await connection.fetch(LOCK_WHOLE, [job_id])]
        # Flushes hold locks on attempts. Waiting for them would make others wait for the row.
        await connection.execute(LOCK_FREE_ATTEMPTS, log_ids)
        return await connection.fetchval(PURGE, job_id, sha256) is not None


async def replace_contents(connection: Connection, wholes: Sequence[WholeContent]) -> list[Log]:
    """Write the contents of logs whole, all of them or none; the last one per job counts.

    Deletes each log's parts and closes its attempts. Empty content clears the log; other content
    counts as a part before number 0. Returns the new rows.

    Raises:
        UnderHold: one of them is under legal hold.
        UnderMaintenance: maintenance is on.
    """
    by_job = {whole.job_id: whole for whole in wholes}
    async with connection.transaction():
        await check_writing(connection)
        # All rows of logs, then all of attempts, each by id: the order in which all callers lock.
        await connection.execute(MAKE_LOGS, [*by_job])
        locked = await connection.fetch(LOCK_WHOLE, [*by_job])
        log_ids = [row["id"] for row in locked]
        await check_holds(connection, log_ids)
        await connection.execute(MAKE_UNNAMED, log_ids)
        await delete_text(connection, log_ids)
        return [await _replace(connection, row["id"], by_job[row["job_id"]]) for row in locked]


async def delete_text(connection: Connection, log_ids: Sequence[int]) -> None:
    """Delete the parts and steps of locked logs, and close their attempts."""
    await connection.execute(LOCK_ATTEMPTS, log_ids)
    await connection.execute(DELETE_PARTS, log_ids)
    await timings.delete(connection, log_ids)
    await connection.execute(CLOSE_ATTEMPTS, log_ids)


async def clear(
    connection: Connection,
    log_ids: Sequence[int],
    *,
    expired: bool = False,
    removed_by: int | None = None,
) -> None:
    """Reset the rows of logs whose text was deleted, and record that their objects must be deleted.

    `expired`: retention deleted it; otherwise `removed_by` is the user who did, if any.
    """
    await connection.execute(CLEAR, log_ids, expired, removed_by)


async def _replace(connection: Connection, log_id: int, whole: WholeContent) -> Log:
    if whole.content:
        await connection.execute(WRITE_WHOLE, log_id, whole.content)
    await clear(connection, [log_id], removed_by=whole.removed_by)
    row = await connection.fetchrow(READ, log_id)
    assert row  # noqa: S101 - the row is locked
    await announce(connection, {whole.job_id: WHOLE})
    return Log(**row)


async def pending_deletion(connection: Connection, job_id: int) -> int | None:
    """Return up to which upload the archived object must be deleted; None if no deletion is due."""
    through: int | None = await connection.fetchval(PENDING_DELETION, job_id)
    return through


async def mark_archive_deleted(
    connection: Connection, job_id: int, settle_seconds: float, *, found: bool
) -> None:
    """Record that a pending deletion from the archive is done, or the check after it.

    If an object was `found`, or might still arrive, the archive is checked again after
    `settle_seconds`.
    """
    await connection.execute(MARK_ARCHIVE_DELETED, job_id, found, settle_seconds)
