"""Making a log's content: of its parts, of these and what was made of parts now gone, or restored.

Who makes content locks the log's row before looking at its parts, so that each sees all that those
before it did.
"""

from collections.abc import AsyncIterable, Sequence
from typing import Any

import asyncpg

from db.connect import PLANS, Connection
from db.maintenance import check_writing
from db.notify import announce
from logflume.domain import LAST, MAX_LOG_BYTES, Content
from logflume.errors import PartsGone

LOCK = """
SELECT id, aggregated_at IS NOT NULL AS aggregated, parts_since, archive_outdated, late_parts,
    content IS NOT NULL AS has_content, content_runs IS NOT NULL AS has_runs,
    content_sha256 IS NOT NULL AS is_known, left_out_bytes IS NOT NULL AS is_cut,
    content_attempt_id
FROM logs WHERE job_id = $1 FOR NO KEY UPDATE
"""
# Where the content comes from: the log's parts, or what was made of them once some are gone.
PARTS = """(
    SELECT number AS first, number AS last, created_at, id, octet_length(content) AS bytes, final,
        true AS is_new, content
    FROM content_parts($1, $2)
)"""
MERGED = "merged_parts($1, $2)"

# Of content that would be longer than $8 bytes only these, and a notice behind them.
CUT = f"""(
    SELECT first, created_at, id, substring(content FROM 1 FOR ($8 - before)::integer) AS content
    FROM (
        SELECT first, created_at, id, content,
            (sum(bytes) OVER (ORDER BY first, created_at, id) - bytes)::bigint AS before
        FROM {{source}} u
    ) placed
    WHERE before < $8::bigint
    UNION ALL
    SELECT {LAST}, 'infinity', 0, $9::bytea
)"""

# Who comes through a pooler has none set. Sorting what was merged should not go to disk for an
# ordinary log.
SET_LOCAL_PLANS = ";".join(
    f"SET LOCAL {name} = '{value}'" for name, value in {**PLANS, "work_mem": "64MB"}.items()
)

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


# The attempt that is the log, since when there are parts, and how many were stale.
MADE_OF = """
SELECT l.attempt, p.since, p.from_the_first, a.stale_parts, a.uuid
FROM (SELECT log_attempt($1) AS attempt OFFSET 0) l, LATERAL (
    SELECT min(created_at) AS since, coalesce(bool_or(created_at = $2), false) AS from_the_first
    FROM log_parts WHERE log_id = $1
) p, LATERAL (
    SELECT coalesce(sum(stale_parts), 0)::bigint AS stale_parts,
        coalesce(min(uuid) FILTER (WHERE id = l.attempt), '') AS uuid
    FROM log_attempts WHERE log_id = $1
) a
"""

MADE = """
encode(content_sha256, 'hex') AS sha256, content_bytes AS bytes, part_count AS parts, missing_parts,
    left_out_bytes, archive_verified, purged_at IS NOT NULL AS purged
"""


def _aggregate(source: str, left_out: str = "NULL") -> str:
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
    content_runs = $7::text::content_run[], left_out_bytes = {left_out},
    late_parts = false, archiving = false, aggregated_at = now(), updated_at = now(),
    expired_at = NULL
FROM hashed h
WHERE l.id = $1
RETURNING {MADE}
"""


NOTHING_NEW = f"UPDATE logs SET late_parts = false WHERE id = $1 RETURNING {MADE}"
# The row's content as it is, to be archived.
AS_IT_IS = f"""
UPDATE logs SET late_parts = false, archiving = false, archived_at = NULL, archive_verified = false,
    purged_at = NULL, aggregated_at = now(), updated_at = now()
WHERE id = $1 RETURNING {MADE}
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


async def aggregate(
    connection: Connection,
    job_id: int,
    *,
    force: bool,
    restore: bool,
    max_bytes: int = MAX_LOG_BYTES,
) -> Content:
    """Make a log's content of its parts, in the database.

    Nothing is made of a log that has not ended, unless `force`. `restore` makes content again that
    was archived and purged, so that it can be archived again. Where some of its parts are gone with
    their partition, what is new is put where it belongs in what was made of them, which must be in
    the row for that (`restore_content`).

    Of a log longer than `max_bytes` the content is as many and a line that says so. Once parts of
    such a log are gone, it stays as it is.

    Raises:
        PartsGone: it is not known where new parts belong.
        UnderMaintenance: an operator keeps everyone away from parts.
    """
    async with connection.transaction():
        await connection.execute(SET_LOCAL_PLANS)
        await check_writing(connection)
        row = await connection.fetchrow(LOCK, job_id)
        if row is None:
            return Content()
        # A statement of its own: it sees what was committed while we waited for the lock.
        about = await connection.fetchrow(MADE_OF, row["id"], row["parts_since"])
        assert about  # noqa: S101 - aggregates always have a row
        log = (row["id"], about["attempt"])
        gone = row["parts_since"] is not None and not about["from_the_first"]
        if gone and row["is_cut"]:
            if row["content_attempt_id"] == log[1]:
                return await _keep_cut(connection, row, about, restore=restore)
            gone = False  # what is left belongs to another attempt, which is the log now
        if gone and not row["has_runs"]:
            return await _as_archived(connection, job_id, row)
        source = MERGED if gone else PARTS
        told = await connection.fetchrow(_summary(source), *log)
        assert told  # noqa: S101 - aggregates always have a row
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
            since = row["parts_since"] if told["has_old"] else about["since"]
            values = (*log, told["parts"], told["missing_parts"], restore, since)
            made = await _make(connection, source, values, told, max_bytes)
            await announce(connection, {job_id: LAST})
        return _content(facts, made)


async def _make(
    connection: Connection,
    source: str,
    values: Sequence[Any],
    told: asyncpg.Record,
    max_bytes: int,
) -> asyncpg.Record | None:
    left_out = told["bytes"] - max_bytes
    if left_out <= 0:
        return await connection.fetchrow(_aggregate(source), *values, told["runs"])
    cut = _aggregate(CUT.format(source=source), "$10::bigint")
    notice = _notice(max_bytes, left_out)
    return await connection.fetchrow(cut, *values, None, max_bytes, notice, left_out)


async def _keep_cut(
    connection: Connection, row: asyncpg.Record, about: asyncpg.Record, *, restore: bool
) -> Content:
    """Leave a log as it is that was cut and has lost parts: its content is full."""
    facts = {
        "ended": True,
        "stale_parts": about["stale_parts"],
        "attempt": about["uuid"],
        "archive_outdated": row["archive_outdated"],
    }
    if row["aggregated"] and not restore:
        return _content(facts, await connection.fetchrow(NOTHING_NEW, row["id"]))
    if not row["has_content"]:
        return Content(**facts, needs_archived=True)
    return _content(facts, await connection.fetchrow(AS_IT_IS, row["id"]))


def _content(facts: dict[str, Any], made: asyncpg.Record | None) -> Content:
    assert made  # noqa: S101 - the row is locked
    counts = ("parts", "missing_parts", "bytes", "left_out_bytes")
    facts = facts | {name: made[name] or 0 for name in counts}
    return Content(
        **facts,
        sha256=made["sha256"],
        archived=made["archive_verified"],
        purged=made["purged"],
    )


def _notice(max_bytes: int, left_out: int) -> bytes:
    """The end of a log that was cut, which may be in the middle of a line and of colours."""
    return (
        f"\n\x1b[0m\nlogflume: this log was cut after {max_bytes:,} bytes, the most that is kept; "
        f"{left_out:,} bytes more were left out.\n"
    ).encode()


async def _as_archived(connection: Connection, job_id: int, row: asyncpg.Record) -> Content:
    """Leave a log as it is that has lost parts, and of which nobody knows where others belong."""
    if not row["aggregated"] or not row["is_known"] or row["late_parts"]:
        raise PartsGone(
            f"job {job_id}: parts it was made of are gone, and where new ones belong is not "
            "known; its archive stays as it is"
        )
    return _content({"ended": True}, await connection.fetchrow(NOTHING_NEW, row["id"]))


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
