"""Effect of database size: ingest, sweep and lookup, full against empty.

The database is filled in SQL with finished logs, the newest of them with parts, with indexes and
statistics as in production. Also measures the workflow history of a log with many signals.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from statistics import median
from typing import NamedTuple

import asyncpg
import psutil

from bench.figures import Figure
from bench.ingest import drained
from bench.logs import store
from bench.servers import Bench
from db import reading
from db.pending import find_pending
from logflume_cli.services import make_workflows
from workflows.lifecycle_types import PartsStored, workflow_id

PARTS_OF_A_LOG = 100
UNDER_WAY = 500
LOOKUPS = 500
CHATTY_SECONDS = 6 * 3600
LOGS_AT_ONCE, LOGS_WITH_PARTS_AT_ONCE = 50_000, 5_000
# The newest logs have parts; the partitions of the others were dropped.
FILL_LOGS = """
INSERT INTO logs (job_id, content_bytes, content_sha256, part_count, missing_parts, aggregated_at,
    archived_at, archive_verified, purged_at)
SELECT $1::bigint + n, 200, sha256(n::text::bytea), 100, 0, now(), now(), true, now()
FROM generate_series(0, $2::bigint - 1) n
"""
FILL_ATTEMPTS = """
INSERT INTO log_attempts (log_id, uuid, began_at)
SELECT id, 'run', now() FROM logs WHERE job_id BETWEEN $1 AND $1 + $2 - 1
"""
FILL_PARTS = """
INSERT INTO log_parts (log_id, attempt_id, created_at, number, final, content)
SELECT a.log_id, a.id, now() + n * interval '1 microsecond', n, n = 99, 'x'
FROM logs l JOIN log_attempts a ON a.log_id = l.id, generate_series(0, 99) n
WHERE l.job_id BETWEEN $1 AND $1 + $2 - 1
"""


class State(NamedTuple):
    """Results for one state of the database; sweep and lookup in seconds."""

    rate: float
    sweep: float
    lookup: float


async def measure(bench: Bench) -> list[Figure]:
    """Measure the history, then an empty, a full and (unless quick) an empty database."""
    figures = await history(bench)
    await bench.clean()
    logs, parts = (50_000, 250_000) if bench.quick else (10_000_000, 50_000_000)
    empty = [await measure_state(bench)]
    await bench.clean()
    jobs = bench.jobs(logs)
    seconds = await fill(bench, jobs, parts)
    full = await measure_state(bench, jobs)
    if not bench.quick:
        await bench.clean()
        empty.append(await measure_state(bench))
    rate, sweep, lookup = (sum(states) / len(states) for states in zip(*empty, strict=True))
    size = f"{logs:,} logs and {parts:,} parts"
    note = f"filled in {seconds:.0f} s"
    return [
        *figures,
        Figure(f"ingest beside {size}, of empty", 100 * full.rate / rate, "%", 90, note=note),
        Figure("sweep, of empty", full.sweep / sweep, "times", 1.5, less=True, note=ms(full.sweep)),
        Figure(
            "lookup, of empty", full.lookup / lookup, "times", 1.5, less=True, note=ms(full.lookup)
        ),
    ]


def ms(seconds: float) -> str:
    """Seconds as milliseconds."""
    return f"{1000 * seconds:.2f} ms"


async def measure_state(bench: Bench, filled: range | None = None) -> State:
    """Measure sweep, lookups and ingest with running logs in the database."""
    begun = bench.jobs(UNDER_WAY)
    await asyncio.gather(*(store(bench.pool, job_id, 10) for job_id in begun))
    parts = 10_000 if bench.quick else 100_000
    async with bench.pool.acquire() as connection:
        sweep = await timed(20, lambda: find_pending(connection, 0, 0, 0, UNDER_WAY))
        chosen = iter(random.choices(filled or begun, k=LOOKUPS))  # noqa: S311 - not for security
        lookup = await timed(LOOKUPS, lambda: reading.find_many(connection, [next(chosen)]))
    return State((await drained(bench, parts)).rate, sweep, lookup)


async def timed(times: int, do: Callable[[], Awaitable[object]]) -> float:
    """The median duration of a call in seconds."""
    took = []
    for _ in range(times):
        began = time.perf_counter()
        await do()
        took.append(time.perf_counter() - began)
    return median(took)


async def fill(bench: Bench, jobs: range, parts: int) -> float:
    """Fill the database with one task per core; returns the seconds it took."""
    began = time.perf_counter()
    at_once = psutil.cpu_count() or 1
    pool = await asyncpg.create_pool(
        bench.settings.database.url.get_secret_value(),
        min_size=1,
        max_size=at_once,
        server_settings={"synchronous_commit": "off", "session_replication_role": "replica"},
    )

    async def fill_logs(first: int) -> None:
        for query in (FILL_LOGS, FILL_ATTEMPTS):
            await pool.execute(query, first, min(LOGS_AT_ONCE, jobs.stop - first))

    await asyncio.gather(*map(fill_logs, jobs[::LOGS_AT_ONCE]))
    newest = jobs[-parts // PARTS_OF_A_LOG :: LOGS_WITH_PARTS_AT_ONCE]
    await asyncio.gather(
        *(pool.execute(FILL_PARTS, first, LOGS_WITH_PARTS_AT_ONCE) for first in newest)
    )
    # Otherwise autovacuum would start during the measurement.
    await pool.execute("VACUUM (ANALYZE)")
    await pool.execute("CHECKPOINT")
    await pool.close()
    return time.perf_counter() - began


async def history(bench: Bench) -> list[Figure]:
    """The longest history of a log that is signalled every interval for six hours."""
    await bench.stack.up(["worker"])
    signals = round(CHATTY_SECONDS / bench.settings.drain.signal_seconds)
    if bench.quick:
        signals //= 8
    job_id = bench.jobs(1)[0]
    workflows = make_workflows(bench.client, bench.settings)
    for _ in range(signals):
        await workflows.parts_stored(job_id, PartsStored(100, 102_400, begun=True))
        # The query waits until the signal is processed: otherwise one task would process many.
        await workflows.state(job_id)
    runs = [
        (await bench.client.get_workflow_handle(one.id, run_id=one.run_id).describe())
        async for one in bench.client.list_workflows(f"WorkflowId = '{workflow_id(job_id)}'")
    ]
    events = max(run.history_length for run in runs)
    size = max(run.raw_description.workflow_execution_info.history_size_bytes for run in runs)
    note = f"{signals:,} signals, {len(runs)} runs"
    # Temporal warns at these sizes and terminates workflows at five times as much.
    return [
        Figure("history of a chatty log, longest", events, "events", 10_240, less=True, note=note),
        Figure("history of a chatty log, largest", size / 1e6, "MB", 10, less=True),
    ]
