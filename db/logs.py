"""Writing a log's row: aggregation, the archive's marks, the purge, content written whole.

Aggregation and content written whole lock the log's row before they look at its parts, so that
each sees all that the other did.
"""

from collections.abc import AsyncIterable, Sequence
from typing import Any, NamedTuple

from db import timings
from db.connect import Connection
from db.holds import check_holds
from db.maintenance import check_writing
from db.reading import LOG_ATTEMPT, LOG_COLUMNS
from db.watch import announce
from domain import LAST, WHOLE, Content, Log
from errors import ContentReplaced, PartsGone
from marks import Step

LOCK = """
SELECT id, aggregated_at IS NOT NULL AS aggregated, parts_since, archive_outdated,
    content IS NOT NULL AS has_content, content_runs IS NOT NULL AS has_runs
FROM logs WHERE job_id = $1 FOR NO KEY UPDATE
"""
# Also waits for drains that are making attempts, which refer to the row.
LOCK_WHOLE = "SELECT id, job_id FROM logs WHERE job_id = ANY ($1) ORDER BY id FOR UPDATE"

# Where the content comes from: the log's parts, or what was made of them once some are gone.
PARTS = """(
    SELECT number AS first, number AS last, created_at, id, octet_length(content) AS bytes, final,
        true AS is_new, content
    FROM content_parts($1, $2)
)"""
MERGED = "merged_parts($1, $2)"

# A log with more runs than these, as it has gaps, cannot be added to once its parts are gone.
MAX_RUNS = 10_000


def _summary(source: str) -> str:
    return f"""
WITH piece AS (
    SELECT first, last, created_at, id, bytes, final, is_new,
        (first - 1 = lag(last) OVER content AND first NOT IN (0, {LAST})) IS NOT TRUE AS begins
    FROM {source} s WINDOW content AS (ORDER BY first, created_at, id)
), placed AS (
    SELECT *, count(*) FILTER (WHERE begins) OVER (ORDER BY first, created_at, id) AS place
    FROM piece
), run AS (
    SELECT place, min(first) AS first, max(last) AS last, sum(bytes)::bigint AS bytes,
        sum(last - first + 1)::bigint AS parts, min(first) BETWEEN 0 AND {LAST - 1} AS numbered,
        bool_or(final) AS final, bool_or(is_new) AS has_new, bool_or(NOT is_new) AS has_old
    FROM placed GROUP BY place
)
SELECT coalesce(sum(parts), 0)::bigint AS parts, coalesce(sum(bytes), 0)::bigint AS bytes,
    coalesce(
        max(last) FILTER (WHERE numbered) + 1 - sum(parts) FILTER (WHERE numbered), 0
    )::bigint AS missing_parts,
    coalesce(bool_or(final) OR bool_or(first = -1) AND NOT bool_or(numbered), false) AS ended,
    coalesce(bool_or(has_new), false) AS has_new, coalesce(bool_or(has_old), false) AS has_old,
    CASE WHEN count(*) <= {MAX_RUNS}
        THEN array_agg((first, last, bytes)::content_run ORDER BY place) END::text AS runs
FROM run
"""


PARTS_SINCE = """
SELECT min(created_at) AS since, coalesce(bool_or(created_at = $2), false) AS from_the_first
FROM log_parts WHERE log_id = $1
"""

MADE = """
encode(content_sha256, 'hex') AS sha256, content_bytes, archive_verified,
    purged_at IS NOT NULL AS purged
"""


def _aggregate(source: str) -> str:
    # Bytes the archive already holds are not stored again, unless they must be archived again.
    return f"""
WITH made AS MATERIALIZED (
    SELECT coalesce(string_agg(content, ''::bytea), ''::bytea) AS content
    FROM (SELECT content FROM {source} s ORDER BY first, created_at, id) p
), hashed AS MATERIALIZED (
    SELECT content, sha256(content) AS sha256 FROM made
)
UPDATE logs l SET
    content = CASE WHEN h.sha256 = l.content_sha256 AND l.purged_at IS NOT NULL AND NOT $5
        THEN NULL ELSE h.content END,
    purged_at = CASE WHEN h.sha256 = l.content_sha256 AND NOT $5 THEN l.purged_at END,
    archived_at = CASE WHEN h.sha256 = l.content_sha256 AND NOT $5 THEN l.archived_at END,
    archive_verified = h.sha256 = l.content_sha256 AND l.archive_verified AND NOT $5,
    content_bytes = octet_length(h.content), content_sha256 = h.sha256,
    content_attempt_id = $2, part_count = $3, missing_parts = $4, parts_since = $6,
    content_runs = $7::text::content_run[],
    late_parts = false, archiving = false, aggregated_at = now(), updated_at = now(),
    expired_at = NULL
FROM hashed h
WHERE l.id = $1
RETURNING {MADE}
"""


NOTHING_NEW = f"UPDATE logs SET late_parts = false WHERE id = $1 RETURNING {MADE}"
ATTEMPT = """
SELECT coalesce(sum(stale_parts), 0)::bigint AS stale_parts,
    coalesce(min(uuid) FILTER (WHERE id = $2), '') AS uuid
FROM log_attempts WHERE log_id = $1
"""

MAKE_RESTORED = """
CREATE TEMP TABLE restored (place integer GENERATED ALWAYS AS IDENTITY, content bytea)
ON COMMIT DROP
"""
ADD_RESTORED = "INSERT INTO restored (content) VALUES ($1)"
# A row that has content by now, whosever, needs none.
RESTORE = """
WITH made AS MATERIALIZED (
    SELECT coalesce(string_agg(content, ''::bytea ORDER BY place), ''::bytea) AS content
    FROM restored
), changed AS (
    UPDATE logs l SET content = m.content, purged_at = NULL, updated_at = now() FROM made m
    WHERE job_id = $1 AND l.content IS NULL AND content_sha256 = sha256(m.content)
    RETURNING l.id
)
SELECT id FROM changed
UNION ALL
SELECT id FROM logs WHERE job_id = $1 AND (content IS NOT NULL OR content_sha256 IS NULL)
"""

# Of a job's object, held by whoever deletes it apart from the log's workflow: nothing is put there.
ARCHIVE_LOCK = "7001002, (job_id % 2147483647)::integer"
# A workflow that was reset may ask for what was purged since: only the archive holds it now.
MARK_ARCHIVING = f"""
WITH waited AS MATERIALIZED (
    SELECT pg_advisory_xact_lock_shared({ARCHIVE_LOCK}) FROM (SELECT $1::bigint AS job_id) i
)
UPDATE logs SET archiving = true, archived_at = NULL, archive_verified = false, updated_at = now()
FROM waited
WHERE job_id = $1 AND content_sha256 = decode($2, 'hex') AND aggregated_at IS NOT NULL
    AND purged_at IS NULL
RETURNING id
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
# some it was made of are gone, a count of those there would not tell.
PURGE = """
UPDATE logs l SET content = NULL, purged_at = now(), updated_at = now()
WHERE job_id = $1 AND content_sha256 = decode($2, 'hex') AND archive_verified
    AND CASE WHEN content_runs IS NULL
            OR EXISTS (SELECT FROM log_parts WHERE log_id = l.id AND created_at = l.parts_since)
        THEN (SELECT count(*) FROM content_parts(l.id, l.content_attempt_id)) <= l.part_count
        ELSE NOT EXISTS (SELECT FROM merged_parts(l.id, l.content_attempt_id) WHERE is_new) END
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
    step_count = NULL, generation = generation + 1, updated_at = now()
"""
RESET = f"""
UPDATE logs
SET {NOTHING_MADE}, expired_at = NULL,
    removed_at = CASE WHEN $2::bigint IS NULL THEN NULL ELSE now() END, removed_by = $2
WHERE id = $1
RETURNING {LOG_COLUMNS}
"""

OWES_DELETION = "SELECT archive_outdated FROM logs WHERE job_id = $1"
MARK_ARCHIVE_DELETED = "UPDATE logs SET archive_outdated = false WHERE job_id = $1"


class WholeContent(NamedTuple):
    """The bytes a job's log is to be, and by whom what it was is removed (None: by nobody)."""

    job_id: int
    content: bytes
    removed_by: int | None = None


class Verified(NamedTuple):
    """A log that the archive was found to hold.

    `missing_parts`: numbers that its content lacks. `seconds`: since its last part came; None
    where that cannot be looked at: parts are gone, or an operator keeps everyone away from them.
    """

    missing_parts: int
    seconds: float | None


async def aggregate(connection: Connection, job_id: int, *, force: bool, restore: bool) -> Content:
    """Make a log's content of its parts, in the database.

    Nothing is made of a log that has not ended, unless `force`. `restore` makes content again that
    was archived and purged, so that it can be archived again. Where some of its parts are gone with
    their partition, what is new is put where it belongs in what was made of them, which must be in
    the row for that (`restore_content`).

    Raises:
        PartsGone: it is not known where new parts belong.
        UnderMaintenance: an operator keeps everyone away from parts.
    """
    async with connection.transaction():
        await check_writing(connection)
        # Sorting a whole log's parts should not go to disk for an ordinary one.
        await connection.execute("SET LOCAL work_mem = '64MB'")
        row = await connection.fetchrow(LOCK, job_id)
        if row is None:
            return Content()
        # Statements of their own: they see what was committed while we waited for the lock.
        log = (row["id"], await connection.fetchval(LOG_ATTEMPT, row["id"]))
        there = await connection.fetchrow(PARTS_SINCE, row["id"], row["parts_since"])
        assert there  # noqa: S101 - aggregates always have a row
        gone = row["parts_since"] is not None and not there["from_the_first"]
        if gone and not row["has_runs"]:
            raise PartsGone(
                f"job {job_id}: parts it was made of are gone, and where new ones belong is not "
                "known; its archive stays as it is"
            )
        source = MERGED if gone else PARTS
        told = await connection.fetchrow(_summary(source), *log)
        about = await connection.fetchrow(ATTEMPT, *log)
        assert told and about  # noqa: S101, PT018 - aggregates always have a row
        facts: dict[str, Any] = {
            "ended": told["ended"] or (gone and row["aggregated"]),
            "bytes": told["bytes"],
            "parts": told["parts"],
            "missing_parts": told["missing_parts"],
            "stale_parts": about["stale_parts"],
            "attempt": about["uuid"],
            "archive_outdated": row["archive_outdated"],
        }
        wanted = facts["ended"] or force or (restore and row["aggregated"])
        if told["parts"] == 0 or not wanted:
            return Content(**facts)
        if gone and row["aggregated"] and not told["has_new"] and not restore:
            made = await connection.fetchrow(NOTHING_NEW, row["id"])
        elif told["has_old"] and not row["has_content"]:
            return Content(**facts, needs_archived=True)
        else:
            since = row["parts_since"] if told["has_old"] else there["since"]
            made = await connection.fetchrow(
                _aggregate(source), *log, told["parts"], told["missing_parts"], restore, since,
                told["runs"],
            )  # fmt: skip
            await announce(connection, {job_id: LAST})
        assert made  # noqa: S101 - the row is locked
        return Content(
            **facts,
            sha256=made["sha256"],
            archived=made["archive_verified"],
            purged=made["purged"],
        )


async def restore_content(
    connection: Connection, job_id: int, archived: AsyncIterable[bytes]
) -> None:
    """Put the purged content of a log back into its row, from its archived object.

    Raises:
        PartsGone: the object does not hold what was purged.
    """
    async with connection.transaction():
        await connection.execute(MAKE_RESTORED)
        async for piece in archived:
            await connection.execute(ADD_RESTORED, piece)
        await connection.execute(LOCK, job_id)  # the next statement sees what came before it
        if await connection.fetchval(RESTORE, job_id) is None:
            raise PartsGone(
                f"job {job_id}: parts it was made of are gone, and the archived object is not what "
                "was made of them"
            )


async def mark_archiving(connection: Connection, job_id: int, sha256: str) -> int:
    """Note that the content with this SHA-256 is on its way to the archive; returns the log's id.

    Raises:
        ContentReplaced: the log has other content by now, or it was purged.
    """
    log_id: int | None = await connection.fetchval(MARK_ARCHIVING, job_id, sha256)
    if log_id is None:
        raise ContentReplaced(f"the row of job {job_id} no longer has content {sha256[:12]}")
    return log_id


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
    """
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


async def owes_deletion(connection: Connection, job_id: int) -> bool:
    """Whether the archive may still hold what was there before content was written whole."""
    return bool(await connection.fetchval(OWES_DELETION, job_id))


async def mark_archive_deleted(connection: Connection, job_id: int) -> None:
    """Note that the archive no longer holds what was there before content was written whole."""
    await connection.execute(MARK_ARCHIVE_DELETED, job_id)
