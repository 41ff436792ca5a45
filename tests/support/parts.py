"""Makes log parts, and reads and writes the content of a log as the services do."""

import itertools
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg

from db import aggregation, logs, reading
from db.parts import store_batch
from logflume.domain import Part

_clock = itertools.count()
BEGIN = datetime.now(UTC).replace(microsecond=0)


def part(job_id: int, number: int, content: bytes = b"", **fields: Any) -> Part:
    """A part with a later receive time than every part made before."""
    received_at = BEGIN + timedelta(microseconds=next(_clock))
    defaults: dict[str, Any] = {"attempt": "a", "final": False, "published_at": received_at}
    return Part(
        job_id=job_id,
        number=number,
        content=content,
        received_at=received_at,
        **(defaults | fields),
    )


def received_now(job_id: int, one: Part, **fields: Any) -> Part:
    """The same part, of this job, with a later receive time than every part made before."""
    same = {"attempt": one.attempt, "final": one.final, "published_at": one.published_at}
    return part(job_id, one.number, one.content, **(same | fields))


async def write_whole(connection: Any, job_id: int, content: bytes) -> None:
    """Replace a log's content, as `PUT /logs/{id}` does."""
    await logs.replace_contents(connection, [logs.WholeContent(job_id, content)])


async def replace_whole(pool: asyncpg.Pool, job_id: int, content: bytes) -> None:
    """Replace a log's content, with a connection of the pool."""
    async with pool.acquire() as connection:
        await write_whole(connection, job_id, content)


async def store_parts(pool: asyncpg.Pool, parts: Sequence[Part]) -> None:
    """Commit parts as a drain does, with a connection of the pool."""
    async with pool.acquire() as connection:
        await store_batch(connection, parts)


async def content(connection: Any, job_id: int) -> bytes:
    """A log's bytes by the content rule, read from its parts."""
    found = await reading.snapshot(connection, await reading.find(connection, job_id))
    assert found.parts is not None
    if not found.parts:
        return b""
    parts = await reading.read_parts(connection, found.log.id, found.parts, range(len(found.parts)))
    return b"".join(part.content for part in parts)


async def stored_content(pool: asyncpg.Pool, job_id: int) -> bytes:
    """A log's bytes by the content rule, read with a connection of the pool."""
    async with pool.acquire() as connection:
        return await content(connection, job_id)


async def count_parts(pool: asyncpg.Pool) -> int:
    count: int = await pool.fetchval("SELECT count(*) FROM log_parts")
    return count


async def row_content(connection: asyncpg.Connection, job_id: int) -> bytes | None:
    """The row's own copy of the content."""
    content: bytes | None = await connection.fetchval(
        "SELECT content FROM logs WHERE job_id = $1", job_id
    )
    return content


async def finish(connection: Any, job_id: int, **options: Any) -> bytes:
    """Aggregate, verify and purge a log; returns its content. `options` are those of aggregate."""
    made = await aggregation.aggregate(connection, job_id, force=True, restore=False, **options)
    text = await row_content(connection, job_id)
    assert text is not None
    assert await logs.mark_verified(connection, job_id, made.sha256)
    assert await logs.purge(connection, job_id, made.sha256)
    return text


async def pieces(*content: bytes) -> AsyncIterator[bytes]:
    """Yield content as an archive's stream does."""
    for piece in content:
        yield piece
