"""Creates logs for benchmarks with the code of the real processes."""

from datetime import UTC, datetime, timedelta

import asyncpg

from db import aggregation, logs, reading
from db.connect import Connection
from db.parts import store_batch
from logflume.archive.store import Archive
from logflume.domain import Content, Part
from logflume.settings.groups import S3Settings

PART = b"0123456789abcde\n" * 64  # 1 KiB
BATCH = 1_000
MORE = """
INSERT INTO log_parts (log_id, attempt_id, created_at, number, final, content)
SELECT p.log_id, p.attempt_id, p.created_at + n * interval '1 microsecond', n, false, p.content
FROM log_parts p JOIN logs l ON l.id = p.log_id, generate_series(1, $2::integer) n
WHERE l.job_id = $1
"""


async def store_part(
    connection: Connection, job_id: int, number: int, content: bytes, *, final: bool = False
) -> None:
    """Commit one part and notify followers, as the drain does."""
    now = datetime.now(UTC)
    await store_batch(connection, [Part(job_id, "run", number, content, final, now, now)])


async def store(pool: asyncpg.Pool, job_id: int, parts: int, content: bytes = PART) -> None:
    """Store a log of equal parts and an empty final one, as the drain does."""
    now = datetime.now(UTC)
    made = [
        Part(
            job_id,
            "run",
            number,
            content if number < parts else b"",
            number == parts,
            now,
            now + timedelta(0, 0, number),
        )
        for number in range(parts + 1)
    ]
    async with pool.acquire() as connection:
        for at in range(0, len(made), BATCH):
            await store_batch(connection, made[at : at + BATCH])


async def store_large(pool: asyncpg.Pool, job_id: int, parts: int, content: bytes) -> None:
    """Like `store`, but copies the first part inside Postgres."""
    async with pool.acquire() as connection:
        await store_part(connection, job_id, 0, content)
        await connection.execute(MORE, job_id, parts - 1)
        await store_part(connection, job_id, parts, b"", final=True)


async def aggregate(pool: asyncpg.Pool, job_id: int) -> Content:
    """Aggregate a log; returns its content."""
    async with pool.acquire() as connection:
        return await aggregation.aggregate(connection, job_id, force=False, restore=False)


async def archive(settings: S3Settings, pool: asyncpg.Pool, job_id: int, content: Content) -> None:
    """Archive a log's content and purge it from the database."""
    sha256 = content.sha256
    assert sha256  # noqa: S101 - it was aggregated
    async with pool.acquire() as connection:
        log_id, origin = await logs.mark_archiving(connection, job_id, sha256)

        async def read(start: int, size: int) -> bytes:
            return await reading.content_slice(connection, log_id, sha256, start, size)

        await Archive(settings, 1).upload(
            job_id,
            read,
            content.bytes,
            sha256=sha256,
            parts=content.parts,
            origin=origin.text,
        )
        await logs.mark_verified(connection, job_id, sha256)
        await logs.purge(connection, job_id, sha256)
