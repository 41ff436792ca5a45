"""How long writers stall while partitions are made and dropped under them.

`python -m bench.partitions [LOGS [SECONDS]]`: three connections store batches as the drain does,
first alone for SECONDS (default 20), then while maintenance makes a partition and drops ten with
LOGS finished logs each (default 2,000, ten parts of 1 KiB each), then while it does so beside a
transaction that somebody left open.
"""

import asyncio
import sys
import time
from collections.abc import Awaitable
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import asyncpg
import uvloop

from bench.servers import servers
from db import partitions
from db.connect import open_pool
from db.parts import store_batch
from logflume.domain import Part

WRITERS, BATCH, JOBS = 3, 500, 200
TEXT = b"0123456789abcdef" * 64  # 1 KiB
DAYS = 10
LOCK_SECONDS = 0.2
RETENTION = timedelta(days=2)
FILL = """
WITH l AS (
    INSERT INTO logs (job_id, aggregated_at, archive_verified, purged_at)
    SELECT $1 + n, now(), true, now() FROM generate_series(1, $2::bigint) n RETURNING id
)
INSERT INTO log_parts (log_id, attempt_id, created_at, number, final, content)
SELECT l.id, 1, $3::timestamptz + n * interval '1 second', n, n = 9, $4
FROM l, generate_series(0, 9) n
"""


async def main(logs: int, seconds: float) -> None:
    """Measure all three and print what each writer waited for its batches."""
    async with servers() as (_, settings):
        pool = await open_pool(settings.database, WRITERS + 2)
        await stalls("alone", pool, asyncio.sleep(seconds))
        await fill(pool, logs, 0)
        await stalls("beside maintenance", pool, maintain(pool, 8))
        await fill(pool, logs, 1)
        await stalls("and an open transaction", pool, beside_an_open_one(pool, seconds))
        await pool.close()


async def fill(pool: asyncpg.Pool, logs: int, turn: int) -> None:
    """Make ten partitions of days that are over, with logs that have run their course."""
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    begins = [today - timedelta(days=3 + day) for day in range(DAYS)]
    make = "SELECT partman.create_partition_time('public.log_parts', $1::timestamptz[])"
    await pool.execute(make, begins)
    for day, begin in enumerate(begins):
        await pool.execute(FILL, 10**9 * (1 + turn) + 10**6 * day, logs, begin, TEXT)
    await pool.execute("ANALYZE")


async def maintain(pool: asyncpg.Pool, premake: int) -> None:
    """What the workflow's activities do, with a try each 100 ms."""
    tries, longest = 0, 0.0
    async with pool.acquire() as connection:
        made: list[datetime] = []
        await partitions.make_ahead(connection, "daily", premake, LOCK_SECONDS, made.append)
        expired = await partitions.expired(connection, RETENTION)
        for name in expired:
            while True:
                tries += 1
                began = time.perf_counter()
                with suppress(asyncpg.LockNotAvailableError):
                    await partitions.drop(connection, name, RETENTION, LOCK_SECONDS)
                    longest = max(longest, time.perf_counter() - began)
                    break
                await asyncio.sleep(0.1)
        await partitions.analyze(connection, LOCK_SECONDS)
    print(f"  made {len(made)}, dropped {len(expired)} in {tries} tries, longest {longest:.3f} s")


async def beside_an_open_one(pool: asyncpg.Pool, seconds: float) -> None:
    """Maintain while a transaction that has read stays open for `seconds`."""

    async def hold() -> None:
        async with pool.acquire() as connection, connection.transaction():
            await connection.fetch("SELECT FROM log_parts LIMIT 1")
            await asyncio.sleep(seconds)

    await asyncio.gather(hold(), maintain(pool, 8))


async def stalls(name: str, pool: asyncpg.Pool, doing: Awaitable[None]) -> None:
    """Print parts a second and how long batches took, while something is done."""
    took: list[float] = []
    done = False
    number = 0

    async def write() -> None:
        nonlocal number
        async with pool.acquire() as connection:
            while not done:
                now = datetime.now(UTC)
                batch = [
                    Part(1 + n % JOBS, "run", number + n, TEXT, False, now, now)  # noqa: FBT003
                    for n in range(BATCH)
                ]
                number += BATCH
                began = time.perf_counter()
                await store_batch(connection, batch)
                took.append(time.perf_counter() - began)

    writers = [asyncio.create_task(write()) for _ in range(WRITERS)]
    began = time.perf_counter()
    await doing
    seconds = time.perf_counter() - began
    done = True
    await asyncio.gather(*writers)
    took.sort()
    print(
        f"{name:<26}{len(took) * BATCH / seconds:10,.0f} parts/s, a batch: "
        f"median {1000 * took[len(took) // 2]:.0f} ms, longest {1000 * took[-1]:.0f} ms"
    )


if __name__ == "__main__":
    given = [int(argument) for argument in sys.argv[1:]]
    uvloop.run(main(*(given + [2_000, 20][len(given) :])))
