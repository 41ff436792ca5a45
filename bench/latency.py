"""Latency of a part from the runner to its committed row and to a browser's `/stream`.

Timestamped parts of 1 KiB, all of whose jobs have a reader. The commit time comes from Postgres,
which takes it before it flushes the commit to disk; the mean flush time is a figure of its own.
"""

import asyncio

from bench.figures import Figure, waits
from bench.logs import PART
from bench.publish import exchange, part, pour
from bench.readers import Seen, read_streams
from bench.servers import Bench
from bench.subprocess_worker import subprocess_worker
from db import reading
from logflume import contract

# Parts per second: number of jobs.
LOADS = {100: 10, 1_000: 100}
FLUSHES = "SELECT wal_sync_time / nullif(wal_sync, 0) FROM pg_stat_wal"
ROWS = """
SELECT extract(epoch FROM pg_xact_commit_timestamp(p.xmin))::float8
    - substring(encode(substring(p.content FROM 1 FOR 30), 'escape') FROM 'at=([0-9.]+)')::float8
FROM log_parts p JOIN logs l ON l.id = p.log_id
WHERE l.job_id = ANY ($1) AND p.number > 0
"""


async def measure(bench: Bench) -> list[Figure]:
    """Measure one load after another."""
    await bench.stack.up(["drain", "web"])
    seconds = 4 if bench.quick else 30
    found = [await under(bench, rate, jobs, seconds) for rate, jobs in LOADS.items()]
    return [figure for figures in found for figure in figures]


async def under(bench: Bench, rate: int, count: int, seconds: float) -> list[Figure]:
    """Open streams, publish, and collect event and commit times."""
    jobs = bench.jobs(count)
    async with exchange(bench.amqp_url) as target:
        for job_id in jobs:
            await target.publish(part(job_id, 0, PART), contract.ROUTING_KEY)
    async with bench.pool.acquire() as connection:
        while len(await reading.find_many(connection, jobs)) < count:
            await asyncio.sleep(0.05)
    rounds = round(rate * seconds / count)
    await bench.pool.execute("SELECT pg_stat_reset_shared('wal')")
    async with subprocess_worker(read_streams, bench.web, jobs) as receive:
        await receive()  # all streams are open
        async with subprocess_worker(pour, bench.amqp_url, jobs, rate, rounds) as poured:
            await poured()
        seen: Seen = await receive()
    flush: float = await bench.pool.fetchval(FLUSHES)
    rows = [row[0] for row in await bench.pool.fetch(ROWS, [*jobs])]
    shown = seen.of(jobs)
    if seen.closed_early or not len(rows) == len(shown) == rounds * count:
        raise RuntimeError(
            f"{len(rows)} rows, {len(shown)} events, {seen.closed_early} streams closed"
        )
    return [
        *waits(f"publish to committed row, {rate:,} parts/s", rows, (30, 120)),
        Figure(f"flush of a commit, {rate:,} parts/s, mean", flush, "ms"),
        *waits(f"publish to browser, {rate:,} parts/s", shown, (60, 250)),
    ]
