"""Aggregation: makes a log's content from its parts, or merges late parts into content.

Every writer of content locks the log's row before it reads parts, so that each sees everything
that the previous ones committed.
"""

from collections.abc import AsyncIterable
from typing import Any

import asyncpg

from db.connect import PLANS, Connection, allow_transfers
from db.maintenance import check_writing
from db.notify import announce
from logflume.domain import LAST, MAX_LOG_BYTES, Content
from logflume.errors import PartsGone

LOCK = """
SELECT id, aggregated_at IS NOT NULL AS aggregated, parts_since, archive_outdated, late_parts,
    content IS NOT NULL AS has_content, content_runs IS NOT NULL AS has_runs,
    content_sha256 IS NOT NULL AS is_known, left_out_bytes IS NOT NULL AS is_cut,
    content_attempt_id, extract(epoch FROM archive_settles_at - now())::float8 AS settles
FROM logs WHERE job_id = $1 FOR NO KEY UPDATE
"""
# The attempt that is the log, the oldest part, and how many parts were stale.
SOURCE = """
SELECT l.attempt, p.oldest_part, p.has_first, a.stale_parts, a.uuid
FROM (SELECT log_attempt($1) AS attempt OFFSET 0) l, LATERAL (
    SELECT min(created_at) AS oldest_part, coalesce(bool_or(created_at = $2), false) AS has_first
    FROM log_parts WHERE log_id = $1
) p, LATERAL (
    SELECT coalesce(sum(stale_parts), 0)::bigint AS stale_parts,
        coalesce(min(uuid) FILTER (WHERE id = l.attempt), '') AS uuid
    FROM log_attempts WHERE log_id = $1
) a
"""
SUMMARY = """
SELECT parts, bytes, missing_parts, ended, has_new, has_old, runs::text AS runs
FROM content_summary($1, $2, $3, $4)
"""
WRITE = """
SELECT write_content($1, $2, $3, $4, $5, $6, $7, $8::text::content_run[], $9, $10, $11)
"""
READ = "SELECT * FROM log_rows WHERE id = $1"

# Connections through a pooler have no plan settings of their own. Sorting merged content should
# not spill to disk for an ordinary log.
PLANS_HERE = {**PLANS, "work_mem": "64MB"}
SET_PLANS_HERE = """
SELECT set_config(name, value, true) FROM unnest($1::text[], $2::text[]) s (name, value)
"""

# A log with more runs of numbers than this, because of gaps, cannot be merged with late parts once
# its parts are dropped.
MAX_RUNS = 10_000

NOTHING_NEW = "UPDATE logs SET late_parts = false WHERE id = $1"
# Archive the row's content again, unchanged.
ARCHIVE_AGAIN = """
UPDATE logs SET late_parts = false, archiving = false, archived_at = NULL, archive_verified = false,
    purged_at = NULL, aggregated_at = now(), updated_at = now()
WHERE id = $1
"""
CREATE_RESTORED = """
CREATE TEMP TABLE restored (place integer GENERATED ALWAYS AS IDENTITY, content bytea)
ON COMMIT DROP
"""
ADD_RESTORED = "INSERT INTO restored (content) VALUES ($1)"
# A row that has any content by now needs no other.
RESTORE = """
WITH joined AS MATERIALIZED (
    SELECT coalesce(string_agg(content, ''::bytea ORDER BY place), ''::bytea) AS content
    FROM restored
), changed AS (
    UPDATE logs l SET content = j.content, purged_at = NULL, updated_at = now() FROM joined j
    WHERE job_id = $1 AND l.content IS NULL AND content_sha256 = sha256(j.content)
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
    """Aggregate a log: write its content into its row, inside the database.

    A log that has not ended is only aggregated with `force`. `restore` writes content again that
    was archived and purged, so that it can be archived again. If some parts were dropped with
    their partition, late parts are merged into the content made from them; for that the row must
    hold the content (`restore_content`).

    A log longer than `max_bytes` is cut there and ends with a notice. Once parts of such a log are
    dropped, its content no longer changes.

    Raises:
        PartsGone: the positions of late parts are unknown.
        UnderMaintenance: maintenance is on.
    """
    async with connection.transaction():
        await connection.execute(SET_PLANS_HERE, [*PLANS_HERE], [*PLANS_HERE.values()])
        await check_writing(connection)
        row = await connection.fetchrow(LOCK, job_id)
        if row is None:
            return Content()
        # A separate statement: it sees what was committed while LOCK waited.
        source = await connection.fetchrow(SOURCE, row["id"], row["parts_since"])
        assert source  # noqa: S101 - aggregates always return a row
        merged = row["parts_since"] is not None and not source["has_first"]
        if merged and row["is_cut"]:
            if row["content_attempt_id"] == source["attempt"]:
                return await _leave_cut(connection, row, source, restore=restore)
            merged = False  # the content belongs to an attempt that is superseded
        if merged and not row["has_runs"]:
            return await _leave_archived(connection, job_id, row)
        log = (row["id"], source["attempt"], merged)
        summary = await connection.fetchrow(SUMMARY, *log, MAX_RUNS)
        assert summary  # noqa: S101 - aggregates always return a row
        facts: dict[str, Any] = {
            "ended": summary["ended"] or (merged and row["aggregated"]),
            "bytes": summary["bytes"],
            "parts": summary["parts"],
            "missing_parts": summary["missing_parts"],
            "stale_parts": source["stale_parts"],
            "attempt": source["uuid"],
            "archive_outdated": row["archive_outdated"]
            or (summary["parts"] == 0 and _is_past(row["settles"])),
            "settles_seconds": row["settles"],
        }
        is_due = facts["ended"] or force or (restore and row["aggregated"])
        if summary["parts"] == 0 or not is_due:
            return Content(**facts)
        if merged and row["aggregated"] and not summary["has_new"] and not restore:
            await connection.execute(NOTHING_NEW, row["id"])
        elif summary["has_old"] and not row["has_content"]:
            return Content(**facts, needs_archived=True)
        else:
            oldest_part = row["parts_since"] if summary["has_old"] else source["oldest_part"]
            left_out = max(summary["bytes"] - max_bytes, 0)
            notice = _notice(max_bytes, left_out) if left_out else None
            await connection.execute(
                WRITE, *log, restore, oldest_part, summary["parts"], summary["missing_parts"],
                None if left_out else summary["runs"], max_bytes, notice, left_out or None,
            )  # fmt: skip
            await announce(connection, {job_id: LAST})
        return await _content(connection, row["id"], facts)


def _is_past(seconds: float | None) -> bool:
    return seconds is not None and seconds <= 0


def _notice(max_bytes: int, left_out: int) -> bytes:
    """The end of a log that was cut, maybe in the middle of a line and of a colour."""
    return (
        f"\n\x1b[0m\nlogflume: this log was cut after {max_bytes:,} bytes, the size limit; "
        f"{left_out:,} more bytes were left out.\n"
    ).encode()


async def _leave_cut(
    connection: Connection, row: asyncpg.Record, source: asyncpg.Record, *, restore: bool
) -> Content:
    """Leave the content of a cut log whose parts were dropped: it has no room for late parts."""
    facts = {
        "ended": True,
        "stale_parts": source["stale_parts"],
        "attempt": source["uuid"],
        "archive_outdated": row["archive_outdated"],
        "settles_seconds": row["settles"],
    }
    if row["aggregated"] and not restore:
        await connection.execute(NOTHING_NEW, row["id"])
    elif row["has_content"]:
        await connection.execute(ARCHIVE_AGAIN, row["id"])
    else:
        return Content(**facts, needs_archived=True)
    return await _content(connection, row["id"], facts)


async def _leave_archived(connection: Connection, job_id: int, row: asyncpg.Record) -> Content:
    """Leave the content of a log whose parts were dropped without a record of their positions."""
    if not row["aggregated"] or not row["is_known"] or row["late_parts"]:
        raise PartsGone(
            f"job {job_id}: cannot merge late parts: the original parts were dropped and their "
            "positions are unknown; the archive is unchanged"
        )
    await connection.execute(NOTHING_NEW, row["id"])
    return await _content(connection, row["id"], {"ended": True, "settles_seconds": row["settles"]})


async def _content(connection: Connection, log_id: int, facts: dict[str, Any]) -> Content:
    row = await connection.fetchrow(READ, log_id)
    assert row  # noqa: S101 - the row is locked
    return Content(
        **facts
        | {
            "parts": row["part_count"] or 0,
            "missing_parts": row["missing_parts"] or 0,
            "bytes": row["content_bytes"] or 0,
            "complete": row["complete"],
            "left_out_bytes": row["left_out_bytes"] or 0,
            "sha256": row["content_sha256"],
            "archived": row["archive_verified"],
            "purged": row["purged_at"] is not None,
        }
    )


async def restore_content(
    connection: Connection, job_id: int, archived: AsyncIterable[bytes]
) -> None:
    """Write the purged content of a log back into its row, from its archived object.

    Raises:
        PartsGone: the object does not hold the purged content.
    """
    async with connection.transaction():
        await allow_transfers(connection)
        await connection.execute(CREATE_RESTORED)
        async for piece in archived:
            await connection.execute(ADD_RESTORED, piece)
        await connection.execute(LOCK, job_id)  # the next statement sees what was committed before
        if await connection.fetchval(RESTORE, job_id) is None:
            raise PartsGone(
                f"job {job_id}: cannot restore the content: the original parts were dropped and "
                "the archived object holds other bytes"
            )
