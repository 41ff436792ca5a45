"""Creates logs for benchmarks with the code of the real processes."""

from datetime import UTC, datetime, timedelta

import asyncpg

from db import aggregation
from db.connect import Connection
from db.parts import store_batch
from logflume.domain import Content, Part

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
