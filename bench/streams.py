"""What many readers of one live log cost: memory, wake-ups and queries.

1,000 streams of one log, then parts of 1 KiB, two a second, committed as the drain does. The web
and the readers are processes of their own.
"""

import asyncio

import asyncpg
import psutil

from bench.figures import Figure, percentile
from bench.logs import PART, store_part
from bench.readers import Seen, read_streams, stamped
from bench.servers import Bench, cpu_seconds
from bench.subprocess_worker import apart

READERS = 1_000
EVERY_SECONDS = 0.5
# A backend of Postgres 15 that rests tells what it did within ten seconds.
STATISTICS_SECONDS = 11
TRANSACTIONS = "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()"


async def measure(bench: Bench) -> list[Figure]:
    """Measure with one reader, with all of them at rest, and with all of them following."""
    job_id, parts = bench.jobs(1)[0], 10 if bench.quick else 40
    # What the database has counted comes late: a quick run does without.
    patience = 0 if bench.quick else STATISTICS_SECONDS
    async with bench.pool.acquire() as connection:
        await store_part(connection, job_id, 0, PART)
        await bench.stack.up(["web"])
        async with apart(read_streams, bench.web, [job_id]) as hear:
            await hear()  # what the first reader costs is not a reader's cost
            empty = rss(bench)
        async with apart(read_streams, bench.web, [job_id] * READERS) as hear:
            await hear()
            count = await transactions(connection, patience)
            before = cpu_seconds(bench.stack)["web"]
            for number in range(1, parts + 1):
                await store_part(connection, job_id, number, stamped(), final=number == parts)
                await asyncio.sleep(EVERY_SECONDS)
            seen: Seen = await hear()
            spent = cpu_seconds(bench.stack)["web"] - before
            # Ours: a transaction for each part, and the look at the statistics itself.
            count = await transactions(connection, patience) - count - parts - 1
            followed = rss(bench) - empty
    if seen.sent_away:
        raise RuntimeError(f"{seen.sent_away} readers were sent away")
    woken = seen.of([job_id])
    last = [max(waits) for waits in seen.waits.values()]
    figures = [
        Figure(f"memory of {READERS:,} streams of one log", followed, "MB", 100, less=True),
        Figure(
            "a part's commit begun to a reader's event, p99",
            1000 * percentile(woken, 99),
            "ms",
            200,
            less=True,
            note=f"p50 {1000 * percentile(woken, 50):.0f} ms",
        ),
        Figure("until the last reader has it, p50", 1000 * percentile(last, 50), "ms"),
        Figure("CPU of the web for an event", 1e6 * spent / parts / READERS, "µs"),
    ]
    if not bench.quick:
        figures.append(Figure("queries of the web for a part", count / parts))
    return figures


def rss(bench: Bench) -> float:
    """Resident memory of the web's process, in MB."""
    return psutil.Process(bench.pid("web")).memory_info().rss / 1e6


async def transactions(connection: asyncpg.pool.PoolConnectionProxy, patience: float) -> int:
    """How many transactions the database has seen: a query of the web is one each."""
    await asyncio.sleep(patience)
    count: int = await connection.fetchval(TRANSACTIONS)
    return count
