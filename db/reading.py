"""What readers ask of a log: its row, its parts by the content rule, slices of its content."""

from array import array
from collections.abc import Sequence
from datetime import datetime
from itertools import accumulate
from typing import Literal

import asyncpg
import msgspec

from db import maintenance
from db.connect import Connection
from db.maintenance import SECONDS_LEFT
from logflume.domain import LAST, Attempt, Log, StoredPart
from logflume.errors import ContentReplaced, UnknownLog

# What is known of content that is no longer the log's is not told.
LOG_COLUMNS = """
    id, job_id, CASE WHEN aggregated_at IS NOT NULL THEN content_bytes END AS content_bytes,
    CASE WHEN aggregated_at IS NOT NULL THEN encode(content_sha256, 'hex') END AS content_sha256,
    CASE WHEN aggregated_at IS NOT NULL THEN part_count END AS part_count,
    CASE WHEN aggregated_at IS NOT NULL THEN missing_parts END AS missing_parts,
    created_at, updated_at, aggregated_at, archiving, archived_at, archive_verified, purged_at,
    removed_at, removed_by, generation, late_parts, step_count, expired_at,
    CASE WHEN aggregated_at IS NOT NULL THEN left_out_bytes END AS left_out_bytes
"""
FIND_BY_JOB = f"SELECT {LOG_COLUMNS} FROM logs WHERE job_id = $1"
FIND_BY_ID = f"SELECT {LOG_COLUMNS} FROM logs WHERE id = $1"
FIND_MANY = f"SELECT {LOG_COLUMNS} FROM logs WHERE job_id = ANY ($1)"
# With what the row holds, where that is the log and at most so long.
FIND_WHOLE = f"""
SELECT {LOG_COLUMNS}, CASE WHEN NOT late_parts AND content_bytes <= $2 THEN content END AS whole
FROM logs WHERE {{key}} = $1
"""
NEWEST = f"SELECT {LOG_COLUMNS} FROM logs WHERE id < $1 ORDER BY id DESC LIMIT $2"

LOG_ATTEMPT = "SELECT log_attempt($1)"
# That of a log which was imported from an archive begins at infinity, so that it remains the log.
ATTEMPTS = """
SELECT id, uuid, nullif(began_at, 'infinity') AS began_at, closed_at, stale_parts,
    id = log_attempt($1) IS TRUE AS is_log
FROM log_attempts WHERE log_id = $1 ORDER BY 3 NULLS LAST, uuid
"""
# In the order of a log, which is that of its key; contents are read apart, some at a time.
LIST_PARTS = """
SELECT attempt_id, number, created_at, id, octet_length(content) AS bytes, final
FROM content_parts($1, $2) ORDER BY number, created_at, id
"""
# What `last` parts and content written whole say belongs to the log, not to an earlier attempt.
LIST_PARTS_OF_EARLIER = """
SELECT attempt_id, number, created_at, id, octet_length(content) AS bytes, final
FROM content_parts($1, $2) WHERE number BETWEEN 0 AND 2147483646
ORDER BY number, created_at, id
"""
READ_PARTS = """
SELECT p.id, p.number, p.final, p.content
FROM unnest($2::bigint[], $3::integer[], $4::timestamptz[], $5::bigint[]) WITH ORDINALITY
    k (attempt_id, number, created_at, id, place)
JOIN log_parts p ON p.log_id = $1 AND p.attempt_id = k.attempt_id AND p.number = k.number
    AND p.created_at = k.created_at AND p.id = k.id
ORDER BY k.place
"""
# Numbered parts that stand one after the other: by range that costs half of what it does by key.
READ_RANGE = """
SELECT id, content FROM content_parts($1, $2) WHERE number BETWEEN $3 AND $4 LIMIT $5
"""
# Parts that were rescued from an expired partition since they were listed have another time.
READ_MOVED_PARTS = """
SELECT p.id, p.number, p.final, p.content
FROM unnest($2::bigint[], $3::integer[], $4::bigint[]) WITH ORDINALITY
    k (attempt_id, number, id, place)
JOIN log_parts p ON p.log_id = $1 AND p.attempt_id = k.attempt_id AND p.number = k.number
    AND p.id = k.id
ORDER BY k.place
"""
# A small log in one statement, and so of one moment; of a larger one no more than bounds tell. One
# with a number as high as the most parts is long, or has so many gaps that it may as well be.
SMALL_FROM_PARTS = f"""
WITH log AS MATERIALIZED (
    SELECT attempt, EXISTS (
        SELECT FROM log_parts WHERE log_id = $1 AND attempt_id = attempt
            AND number BETWEEN $4 AND {LAST - 1}
    ) AS is_long
    FROM log_attempt($1) attempt
)
SELECT ({SECONDS_LEFT}) AS held, CASE WHEN count(*) <= $4 AND count(content) = count(*)
        AND coalesce(sum(octet_length(content)), 0) <= $2
        AND NOT (SELECT is_long FROM log)
        AND (SELECT aggregated_at IS NULL FROM logs WHERE id = $1)
    THEN coalesce(string_agg(content, '' ORDER BY number, created_at, id), '') END AS whole
FROM (
    SELECT number, created_at, id, CASE WHEN octet_length(content) <= $3 THEN content END AS content
    FROM log, content_parts($1, attempt) WHERE NOT is_long
    ORDER BY number, created_at, id LIMIT $4 + 1
) p
"""
# Without the first of the parts it was made of, a log's parts are not all there.
HAS_ALL_PARTS = """
SELECT EXISTS (SELECT FROM log_parts p WHERE p.log_id = l.id AND p.created_at = l.parts_since)
FROM logs l WHERE l.id = $1
"""
SLICE = """
SELECT substring(content FROM $3::integer + 1 FOR $4) FROM logs
WHERE id = $1 AND content_sha256 = decode($2, 'hex') AND content IS NOT NULL
"""
ROWS_AT_ONCE = 5000
SMALL_PARTS, SMALL_PART_BYTES = 500, 16 * 1024


class PartList:
    """The parts of a log in their order, without their contents: some 60 bytes for each."""

    def __init__(self) -> None:
        self.attempt_ids = array("q")
        self.numbers = array("q")
        self.created: list[datetime] = []
        self.ids = array("q")
        self.final = bytearray()
        # Where each part begins in the content, in bytes; one more for where the last one ends.
        self.offsets = array("q", [0])

    def __len__(self) -> int:
        """How many there are."""
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
    """What a log is made of at one moment.

    `parts` is None where the row's content (or the archive, once it is purged) holds all of it.
    `attempt_id` is 0 there, and where no attempt has begun; `is_log`: it is the one that readers
    see.
    """

    log: Log
    attempt_id: int
    parts: PartList | None
    is_log: bool = True


async def find(connection: Connection, job_id: int) -> Log:
    """Read the row of a job's log.

    Raises:
        UnknownLog: no part and no content ever came for this job.
    """
    return _log(await connection.fetchrow(FIND_BY_JOB, job_id), f"job {job_id}")


async def find_by_id(connection: Connection, log_id: int) -> Log:
    """Read the row of a log by its own id.

    Raises:
        UnknownLog: there is no such log.
    """
    return _log(await connection.fetchrow(FIND_BY_ID, log_id), f"id {log_id}")


async def find_whole(
    connection: Connection, id_: int, most: int, *, by: Literal["job_id", "id"]
) -> tuple[Log, bytes | None]:
    """Read a log's row, by its job's id or its own, and its content if that is small.

    None: it is of more than `most` bytes or many parts, or elsewhere; `snapshot` tells where.

    Raises:
        UnknownLog: there is no such log.
        UnderMaintenance: an operator keeps everyone away from its parts.
    """
    row = await connection.fetchrow(FIND_WHOLE.format(key=by), id_, most)
    if row is None:
        raise UnknownLog(f"there is no log for {'job' if by == 'job_id' else by} {id_}")
    columns = dict(row)
    whole: bytes | None = columns.pop("whole")
    log = Log(**columns)
    if log.aggregated_at is None and log.expired_at is None:
        found = await connection.fetchrow(
            SMALL_FROM_PARTS, log.id, most, SMALL_PART_BYTES, SMALL_PARTS
        )
        assert found  # noqa: S101 - aggregates always have a row
        maintenance.check_off(found["held"])
        whole = found["whole"]
    return log, whole


def _log(row: asyncpg.Record | None, name: str) -> Log:
    if row is None:
        raise UnknownLog(f"there is no log for {name}")
    return Log(**row)


async def find_many(connection: Connection, job_ids: Sequence[int]) -> dict[int, Log]:
    """Read the rows of many jobs' logs, by job id; jobs without one are left out."""
    rows = await connection.fetch(FIND_MANY, job_ids)
    return {row["job_id"]: Log(**row) for row in rows}


async def newest(connection: Connection, before: int, count: int) -> list[Log]:
    """Read the rows of the `count` newest logs whose own id is below `before`."""
    return [Log(**row) for row in await connection.fetch(NEWEST, before, count)]


async def attempts(connection: Connection, log_id: int) -> list[Attempt]:
    """List the runs of a job that a log heard of, in the order they began."""
    return [Attempt(**row) for row in await connection.fetch(ATTEMPTS, log_id)]


async def snapshot(connection: Connection, log: Log, attempt: str | None = None) -> Snapshot:
    """List what a log is made of now; with `attempt`, what that run of the job said.

    Raises:
        UnknownLog: the log has no such attempt, or its parts are gone.
        UnderMaintenance: an operator keeps everyone away from parts.
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
                parts = await _list(connection, LIST_PARTS_OF_EARLIER, log.id, wanted)
                return Snapshot(log, wanted, parts, is_log=False)
        if await _is_in_row(connection, log):
            return Snapshot(log, 0, None)
        return Snapshot(log, current, await _list(connection, LIST_PARTS, log.id, current))


async def _open_attempt(connection: Connection, log: Log, uuid: str) -> int:
    for attempt in await attempts(connection, log.id):
        has_begun = attempt.began_at is not None or attempt.is_log
        if attempt.uuid == uuid and attempt.closed_at is None and has_begun:
            return attempt.id
    raise UnknownLog(f"the log of job {log.job_id} has no attempt {uuid!r}, or no longer")


async def _is_in_row(connection: Connection, log: Log) -> bool:
    """Whether the row tells it all, or at least all that is left."""
    return log.aggregated_at is not None and not (
        log.late_parts and await connection.fetchval(HAS_ALL_PARTS, log.id)
    )


async def _list(connection: Connection, query: str, log_id: int, attempt_id: int) -> PartList:
    found = PartList()
    cursor = await connection.cursor(query, log_id, attempt_id)
    while rows := await cursor.fetch(ROWS_AT_ONCE):
        found.add(rows)
    return found


async def has_all_parts(connection: Connection, log_id: int) -> bool:
    """Whether all the parts that an aggregated log was made of are still there."""
    return bool(await connection.fetchval(HAS_ALL_PARTS, log_id))


async def read_parts(
    connection: Connection, log_id: int, parts: PartList, which: Sequence[int]
) -> list[StoredPart]:
    """Read the parts at these places of a list, in the order given.

    Raises:
        ContentReplaced: some of them are gone, because content was written whole.
    """
    columns = (parts.attempt_ids, parts.numbers, parts.created, parts.ids)
    keys = [[column[place] for place in which] for column in columns]
    rows = await connection.fetch(READ_PARTS, log_id, *keys)
    if len(rows) < len(which):
        attempt_ids, numbers, _, ids = keys
        rows = await connection.fetch(READ_MOVED_PARTS, log_id, attempt_ids, numbers, ids)
    if len(rows) < len(which):
        raise ContentReplaced(f"the content of log {log_id} was written anew")
    return [StoredPart(*row) for row in rows]


async def read_bytes(connection: Connection, log_id: int, parts: PartList, which: range) -> bytes:
    """Read the bytes of the parts at these places of a list.

    Raises:
        ContentReplaced: some of them are gone, because content was written whole.
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
    except KeyError:  # others came between them since
        found = await read_parts(connection, log_id, parts, which)
        return b"".join(part.content for part in found)


async def content_slice(
    connection: Connection, log_id: int, sha256: str, start: int, size: int
) -> bytes:
    """Read `size` bytes from `start` of the content whose SHA-256 (hex) is given.

    Raises:
        ContentReplaced: the log has other content by now, or none.
    """
    found: bytes | None = await connection.fetchval(SLICE, log_id, sha256, start, size)
    if found is None:
        raise ContentReplaced(f"the content of log {log_id} is no longer {sha256[:12]}")
    return found
