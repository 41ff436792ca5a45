"""Cost of many readers of one live log: memory, latency and queries.

1,000 streams of one log; two parts of 1 KiB per second, committed as the drain does. The web and
the readers are separate processes.
"""

import asyncio

import asyncpg
import psutil

from bench.figures import Figure, percentile
from bench.logs import PART, store_part
from bench.readers import Seen, read_streams, stamped
from bench.servers import Bench, cpu_seconds
from bench.subprocess_worker import subprocess_worker

READERS = 1_000
EVERY_SECONDS = 0.5
# An idle backend of Postgres 15 reports statistics within ten seconds.
STATISTICS_SECONDS = 11
TRANSACTIONS = "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()"


async def measure(bench: Bench) -> list[Figure]:
    """Measure with one reader, with all idle, and with all following."""
    job_id, parts = bench.jobs(1)[0], 10 if bench.quick else 40
    # Statistics arrive late: a quick run skips them.
    patience = 0 if bench.quick else STATISTICS_SECONDS
    async with bench.pool.acquire() as connection:
        await store_part(connection, job_id, 0, PART)
        await bench.stack.up(["web"])
        async with subprocess_worker(read_streams, bench.web, [job_id]) as receive:
            await receive()  # exclude the one-time cost of the first reader
            empty = rss(bench)
        async with subprocess_worker(read_streams, bench.web, [job_id] * READERS) as receive:
            await receive()
            count = await transactions(connection, patience)
            before = cpu_seconds(bench.stack)["web"]
            for number in range(1, parts + 1):
                await store_part(connection, job_id, number, stamped(), final=number == parts)
                await asyncio.sleep(EVERY_SECONDS)
            seen: Seen = await receive()
            spent = cpu_seconds(bench.stack)["web"] - before
            # Subtract our own: one transaction per part and the statistics query.
            count = await transactions(connection, patience) - count - parts - 1
            followed = rss(bench) - empty
    if seen.closed_early:
        raise RuntimeError(f"{seen.closed_early} streams were closed early")
    woken = seen.of([job_id])
    last = [max(waits) for waits in seen.waits.values()]
    figures = [
        Figure(f"memory of {READERS:,} streams of one log", followed, "MB", 100, less=True),
        Figure(
            "start of commit to a reader's event, p99",
            1000 * percentile(woken, 99),
            "ms",
            200,
            less=True,
            note=f"p50 {1000 * percentile(woken, 50):.0f} ms",
        ),
        Figure("until the last reader has it, p50", 1000 * percentile(last, 50), "ms"),
        Figure("CPU of the web per event", 1e6 * spent / parts / READERS, "µs"),
    ]
    if not bench.quick:
        figures.append(Figure("queries of the web per part", count / parts))
    return figures


def rss(bench: Bench) -> float:
    """RSS of the web process in MB."""
    return psutil.Process(bench.pid("web")).memory_info().rss / 1e6


async def transactions(connection: asyncpg.pool.PoolConnectionProxy, patience: float) -> int:
    """The database's transaction count; each query of the web is one."""
    await asyncio.sleep(patience)
    count: int = await connection.fetchval(TRANSACTIONS)
    return count
