"""Reads logs: rows, parts by the content rule, slices of content."""

from array import array
from collections.abc import Sequence
from datetime import datetime
from itertools import accumulate
from typing import Literal

import asyncpg
import msgspec

from db import maintenance
from db.connect import Connection
from logflume.domain import LAST, WHOLE, Attempt, Log, StoredPart
from logflume.errors import ContentReplaced, UnknownLog

FIND_BY_JOB = "SELECT * FROM log_rows WHERE job_id = $1"
FIND_BY_ID = "SELECT * FROM log_rows WHERE id = $1"
FIND_MANY = "SELECT * FROM log_rows WHERE job_id = ANY ($1)"
# With the content, if it is all of the log and at most this long.
FIND_WHOLE_BY_JOB = """
SELECT r.*, (
    SELECT content FROM logs WHERE id = r.id AND NOT late_parts AND content_bytes <= $2
) AS whole
FROM log_rows r WHERE job_id = $1
"""
FIND_WHOLE_BY_ID = """
SELECT r.*, (
    SELECT content FROM logs WHERE id = r.id AND NOT late_parts AND content_bytes <= $2
) AS whole
FROM log_rows r WHERE id = $1
"""
NEWEST = "SELECT * FROM log_rows WHERE id < $1 ORDER BY id DESC LIMIT $2"

LOG_ATTEMPT = "SELECT log_attempt($1)"
# The attempt of a log imported from an archive begins at infinity, so that it remains the log.
ATTEMPTS = """
SELECT id, uuid, nullif(began_at, 'infinity') AS began_at, closed_at, stale_parts,
    id = log_attempt($1) IS TRUE AS is_log
FROM log_attempts WHERE log_id = $1 ORDER BY 3 NULLS LAST, uuid
"""
# In content order, which is that of the key, in a range of numbers; the contents are read
# separately, in pages.
LIST_PARTS = """
SELECT attempt_id, number, created_at, id, octet_length(content) AS bytes, final
FROM content_parts($1, $2) WHERE number BETWEEN $3::bigint AND $4::bigint ORDER BY number, id
"""
# `last` parts and content written whole belong to the log, not to an earlier attempt.
LIST_PARTS_OF_EARLIER = """
SELECT attempt_id, number, created_at, id, octet_length(content) AS bytes, final
FROM content_parts($1, $2)
WHERE number BETWEEN 0 AND number_last() - 1 AND number BETWEEN $3::bigint AND $4::bigint
ORDER BY number, id
"""
READ_PARTS = """
SELECT p.id, p.number, p.final, p.content
FROM unnest($2::bigint[], $3::integer[], $4::timestamptz[], $5::bigint[]) WITH ORDINALITY
    k (attempt_id, number, created_at, id, place)
JOIN log_parts p ON p.log_id = $1 AND p.attempt_id = k.attempt_id AND p.number = k.number
    AND p.created_at = k.created_at AND p.id = k.id
ORDER BY k.place
"""
# Consecutive numbered parts: reading them by range takes half the time of reading them by key.
READ_RANGE = """
SELECT id, content FROM content_parts($1, $2) WHERE number BETWEEN $3 AND $4 LIMIT $5
"""
# Parts moved out of an expired partition since they were listed have another receive time.
READ_MOVED_PARTS = """
SELECT p.id, p.number, p.final, p.content
FROM unnest($2::bigint[], $3::integer[], $4::bigint[]) WITH ORDINALITY
    k (attempt_id, number, id, place)
JOIN log_parts p ON p.log_id = $1 AND p.attempt_id = k.attempt_id AND p.number = k.number
    AND p.id = k.id
ORDER BY k.place
"""
# A small log in one statement, and so in one snapshot; null for a larger one, at a bounded cost. A
# log with a number above the most parts is long, or has so many gaps that it is treated as long.
SMALL_FROM_PARTS = """
WITH log AS MATERIALIZED (
    SELECT attempt, EXISTS (
        SELECT FROM log_parts WHERE log_id = $1 AND attempt_id = attempt
            AND number BETWEEN $4 AND number_last() - 1
    ) AS is_long
    FROM log_attempt($1) attempt
)
SELECT (
        SELECT extract(epoch FROM until - now()) FROM maintenance WHERE until > now()
    ) AS maintenance_seconds, CASE WHEN count(*) <= $4 AND count(content) = count(*)
        AND coalesce(sum(octet_length(content)), 0) <= $2
        AND NOT (SELECT is_long FROM log)
        AND (SELECT aggregated_at IS NULL FROM logs WHERE id = $1)
    THEN coalesce(string_agg(content, '' ORDER BY number, id), '') END AS whole
FROM (
    SELECT number, id, CASE WHEN octet_length(content) <= $3 THEN content END AS content
    FROM log, content_parts($1, attempt) WHERE NOT is_long
    ORDER BY number, id LIMIT $4 + 1
) p
"""
# Partitions are dropped oldest first: while the oldest aggregated part exists, all of them do.
HAS_ALL_PARTS = """
SELECT EXISTS (SELECT FROM log_parts p WHERE p.log_id = l.id AND p.created_at = l.parts_since)
FROM logs l WHERE l.id = $1
"""
SLICE = """
SELECT substring(content FROM $3::integer + 1 FOR $4) FROM logs
WHERE id = $1 AND content_sha256 = decode($2, 'hex') AND content IS NOT NULL
"""
ROWS_PER_PAGE = 5000
EVERY_NUMBER = (WHOLE, LAST)
SMALL_PARTS, SMALL_PART_BYTES = 500, 16 * 1024


class PartList:
    """The parts of a log in content order, without their contents: about 60 bytes each."""

    def __init__(self) -> None:
        self.attempt_ids = array("q")
        self.numbers = array("q")
        self.created: list[datetime] = []
        self.ids = array("q")
        self.final = bytearray()
        # The byte offset of each part in the content, and the end of the last one.
        self.offsets = array("q", [0])

    def __len__(self) -> int:
        """Return the number of parts."""
        return len(self.ids)

    def add(self, rows: Sequence[asyncpg.Record]) -> None:
        """Add rows of `LIST_PARTS`."""
        self.attempt_ids.extend(row["attempt_id"] for row in rows)
        self.numbers.extend(row["number"] for row in rows)
        self.created.extend(row["created_at"] for row in rows)
        self.ids.extend(row["id"] for row in rows)
        self.final.extend(row["final"] for row in rows)
        sizes = accumulate((row["bytes"] for row in rows), initial=self.offsets.pop())
        self.offsets.extend(sizes)


class Snapshot(msgspec.Struct, frozen=True):
    """What a log consists of in one database snapshot.

    `parts` is None if the row's content (or the archive, once purged) is all of it. `attempt_id`
    is 0 then, and if no attempt has begun. `is_log`: the attempt is the log.
    """

    log: Log
    attempt_id: int
    parts: PartList | None
    is_log: bool = True


async def find(connection: Connection, job_id: int) -> Log:
    """Read the row of a job's log.

    Raises:
        UnknownLog: the job has no log.
    """
    return _log(await connection.fetchrow(FIND_BY_JOB, job_id), f"job {job_id}")


async def find_by_id(connection: Connection, log_id: int) -> Log:
    """Read the row of a log by its own id.

    Raises:
        UnknownLog: no log has this id.
    """
    return _log(await connection.fetchrow(FIND_BY_ID, log_id), f"id {log_id}")


async def find_whole(
    connection: Connection, id_: int, most: int, *, by: Literal["job_id", "id"]
) -> tuple[Log, bytes | None]:
    """Read a log's row by job id or log id, and its content if that is small.

    The content is None if it has more than `most` bytes or many parts, or is only in the archive;
    then use `snapshot`.

    Raises:
        UnknownLog: no log has this id.
        UnderMaintenance: maintenance is on and the log must be read from parts.
    """
    query = FIND_WHOLE_BY_JOB if by == "job_id" else FIND_WHOLE_BY_ID
    row = await connection.fetchrow(query, id_, most)
    if row is None:
        raise UnknownLog(f"no log for {'job' if by == 'job_id' else by} {id_}")
    columns = dict(row)
    whole: bytes | None = columns.pop("whole")
    log = Log(**columns)
    if log.aggregated_at is None and log.expired_at is None:
        small = await connection.fetchrow(
            SMALL_FROM_PARTS, log.id, most, SMALL_PART_BYTES, SMALL_PARTS
        )
        assert small  # noqa: S101 - aggregates always return a row
        maintenance.check_off(small["maintenance_seconds"])
        whole = small["whole"]
    return log, whole


def _log(row: asyncpg.Record | None, name: str) -> Log:
    if row is None:
        raise UnknownLog(f"no log for {name}")
    return Log(**row)


async def find_many(connection: Connection, job_ids: Sequence[int]) -> dict[int, Log]:
    """Read the rows of many jobs' logs, by job id; jobs without a log are omitted."""
    rows = await connection.fetch(FIND_MANY, job_ids)
    return {row["job_id"]: Log(**row) for row in rows}


async def newest(connection: Connection, before: int, count: int) -> list[Log]:
    """Read the rows of the `count` newest logs with log ids below `before`."""
    return [Log(**row) for row in await connection.fetch(NEWEST, before, count)]


async def attempts(connection: Connection, log_id: int) -> list[Attempt]:
    """List the attempts of a log in the order they began."""
    return [Attempt(**row) for row in await connection.fetch(ATTEMPTS, log_id)]


async def snapshot(
    connection: Connection,
    log: Log,
    attempt: str | None = None,
    *,
    numbers: tuple[int, int] = EVERY_NUMBER,
) -> Snapshot:
    """List what a log consists of now; with `attempt`, the parts of that attempt.

    `numbers` are the first and the last number to list.

    Raises:
        UnknownLog: the log has no such open attempt.
        UnderMaintenance: maintenance is on.
    """
    if attempt is None and log.aggregated_at is not None and not log.late_parts:
        return Snapshot(log, 0, None)
    await maintenance.check(connection)
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        log = await find_by_id(connection, log.id)
        current = await connection.fetchval(LOG_ATTEMPT, log.id) or 0
        if attempt is not None:
            wanted = await _open_attempt(connection, log, attempt)
            if wanted != current:
                parts = await _list(connection, LIST_PARTS_OF_EARLIER, log.id, wanted, numbers)
                return Snapshot(log, wanted, parts, is_log=False)
        if await _is_in_row(connection, log):
            return Snapshot(log, 0, None)
        return Snapshot(log, current, await _list(connection, LIST_PARTS, log.id, current, numbers))


async def _open_attempt(connection: Connection, log: Log, uuid: str) -> int:
    for attempt in await attempts(connection, log.id):
        has_begun = attempt.began_at is not None or attempt.is_log
        if attempt.uuid == uuid and attempt.closed_at is None and has_begun:
            return attempt.id
    raise UnknownLog(f"the log of job {log.job_id} has no attempt {uuid!r}, or no longer")


async def _is_in_row(connection: Connection, log: Log) -> bool:
    """Whether the row holds all of the log, or all that is left of it."""
    return log.aggregated_at is not None and not (
        log.late_parts and await connection.fetchval(HAS_ALL_PARTS, log.id)
    )


async def _list(
    connection: Connection, query: str, log_id: int, attempt_id: int, numbers: tuple[int, int]
) -> PartList:
    parts = PartList()
    cursor = await connection.cursor(query, log_id, attempt_id, *numbers)
    while rows := await cursor.fetch(ROWS_PER_PAGE):
        parts.add(rows)
    return parts


async def has_all_parts(connection: Connection, log_id: int) -> bool:
    """Whether all the parts that a log was aggregated from still exist."""
    return bool(await connection.fetchval(HAS_ALL_PARTS, log_id))


async def read_parts(
    connection: Connection, log_id: int, parts: PartList, which: Sequence[int]
) -> list[StoredPart]:
    """Read the parts at these indices of a list, in the order given.

    Raises:
        ContentReplaced: some of them were deleted because content was written whole.
    """
    columns = (parts.attempt_ids, parts.numbers, parts.created, parts.ids)
    keys = [[column[index] for index in which] for column in columns]
    rows = await connection.fetch(READ_PARTS, log_id, *keys)
    if len(rows) < len(which):
        attempt_ids, numbers, _, ids = keys
        rows = await connection.fetch(READ_MOVED_PARTS, log_id, attempt_ids, numbers, ids)
    if len(rows) < len(which):
        raise ContentReplaced(f"the content of log {log_id} was replaced")
    return [StoredPart(**row) for row in rows]


async def read_bytes(connection: Connection, log_id: int, parts: PartList, which: range) -> bytes:
    """Read the bytes of the parts at these indices of a list.

    Raises:
        ContentReplaced: some of them were deleted because content was written whole.
    """
    first, last = parts.numbers[which[0]], parts.numbers[which[-1]]
    ids = parts.ids[which.start : which.stop]
    contents = {}
    if first >= 0 and last < LAST:
        attempt_id = parts.attempt_ids[which[0]]
        rows = await connection.fetch(READ_RANGE, log_id, attempt_id, first, last, len(ids))
        contents = {row["id"]: row["content"] for row in rows}
    try:
        return b"".join(map(contents.__getitem__, ids))
    except KeyError:  # parts with numbers between them arrived since
        stored = await read_parts(connection, log_id, parts, which)
        return b"".join(part.content for part in stored)


async def content_slice(
    connection: Connection, log_id: int, sha256: str, start: int, size: int
) -> bytes:
    """Read `size` bytes from `start` of the content with this SHA-256 (hex).

    Raises:
        ContentReplaced: the row holds other content by now, or none.
    """
    content: bytes | None = await connection.fetchval(SLICE, log_id, sha256, start, size)
    if content is None:
        raise ContentReplaced(f"the content of log {log_id} is no longer {sha256[:12]}")
    return content
