"""Cost of a log in Temporal actions, S3 requests, rows and WAL, against the minimum.

Logs of 100 KiB in 100 parts and a final one come in and are carried through their lives, no timer
left out. The bounds are made by hand: what any system of these parts must do.
"""

import asyncio
import sys
from collections import Counter
from contextlib import AsyncExitStack

import asyncpg
from temporalio.api.enums.v1 import EventType
from temporalio.client import Client, WorkflowHistory

from bench.figures import Figure
from bench.lifecycle import until_closed
from bench.logs import PART
from bench.publish import finish, preload
from bench.servers import Bench, process
from bench.subprocess_worker import subprocess_worker
from workflows.lifecycle_types import workflow_id

PARTS = 100
BATCH = 1_000
# Start and final signal; settle and purge timers; aggregate, archive, verify and purge.
LEAST_ACTIONS = 2 + 2 + 4
LEAST_REQUESTS = 2  # PUT, and GET to verify
# Inserts of parts, log and attempt; updates by aggregate, verify and purge.
LEAST_ROWS = PARTS + 1 + 2 + 3
ROWS = """
SELECT sum(n_tup_ins + n_tup_upd + n_tup_del)::bigint FROM pg_stat_user_tables
WHERE schemaname = 'public'
"""
WAL = "SELECT (pg_current_wal_lsn() - '0/0')::bigint"
STORED = "SELECT count(*) FROM log_parts"
LEAST_TABLES = """
CREATE TABLE least_parts (
    LIKE log_parts INCLUDING STORAGE,
    PRIMARY KEY (log_id, attempt_id, number, id, created_at)
);
CREATE TABLE least_logs (job_id bigint PRIMARY KEY, content bytea);
ALTER TABLE least_logs ALTER content SET STORAGE EXTERNAL
"""

# What Temporal bills: https://docs.temporal.io/evaluate/cloud/actions. Heartbeats and queries,
# which leave no event, come on top; a log of this size has none.
ACTIONS = {
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED: "signals, the start among them",
    EventType.EVENT_TYPE_TIMER_STARTED: "timers",
    EventType.EVENT_TYPE_ACTIVITY_TASK_STARTED: "activities",
    EventType.EVENT_TYPE_MARKER_RECORDED: "workflow tasks with local activities",
    EventType.EVENT_TYPE_UPSERT_WORKFLOW_SEARCH_ATTRIBUTES: "search attributes",
}


async def measure(bench: Bench) -> list[Figure]:
    """Count everything over the lifecycles of some logs."""
    logs = 50 if bench.quick else 300
    jobs = bench.jobs(logs)
    least = await least_wal(bench, logs)
    await bench.pool.execute("CHECKPOINT")
    await flush_statistics(bench.pool)
    rows, wal = await bench.pool.fetchval(ROWS), await bench.pool.fetchval(WAL)
    await bench.stack.up(["drain"])
    async with subprocess_worker(preload, bench.amqp_url, jobs, logs * PARTS) as receive:
        await receive()
    while await bench.pool.fetchval(STORED) < logs * PARTS:
        await asyncio.sleep(0.1)
    notes = bench.stack.home.data_dir / "requests"
    worker = (sys.executable, "-m", "bench.counting_worker", str(notes))
    async with process(bench.stack, "worker", *worker):
        async with subprocess_worker(finish, bench.amqp_url, jobs, PARTS) as receive:
            await receive()
        await until_closed(bench.client, jobs)
    # A backend reports its statistics when it exits.
    await bench.stack.down(["drain"])
    await asyncio.sleep(1)
    rows, wal = await bench.pool.fetchval(ROWS) - rows, await bench.pool.fetchval(WAL) - wal
    billed = await actions(bench.client, jobs)
    requests = Counter(notes.read_text().split())
    return [
        against_minimum(
            "Temporal actions", billed.total() / logs, LEAST_ACTIONS, each(billed, logs)
        ),
        against_minimum(
            "S3 requests", requests.total() / logs, LEAST_REQUESTS, each(requests, logs)
        ),
        against_minimum("rows written", rows / logs, LEAST_ROWS),
        against_minimum("WAL, KB", wal / logs / 1000, least / 1000),
    ]


async def flush_statistics(pool: asyncpg.Pool) -> None:
    """Flush the statistics of a pool's backends; idle ones report late."""
    async with AsyncExitStack() as held:
        for _ in range(pool.get_size()):
            connection = await held.enter_async_context(pool.acquire())
            await connection.execute("SELECT pg_stat_force_next_flush()")


def against_minimum(what: str, count: float, least: float, note: str = "") -> Figure:
    """A cost per log and its ratio to the minimum."""
    ratio = f"{count / least:.2f} times the minimum of {least:,.0f}"
    return Figure(f"{what} a log", count, note=f"{ratio}; {note}" if note else ratio)


async def least_wal(bench: Bench, logs: int) -> float:
    """Minimal WAL bytes per log: COPY of its parts to one table, its content once to another."""
    async with bench.pool.acquire() as connection:
        await connection.execute(LEAST_TABLES)
        await connection.execute("CHECKPOINT")
        before = await connection.fetchval(WAL)
        count = logs * PARTS
        now = await connection.fetchval("SELECT now()")
        for at in range(0, count, BATCH):
            records = [
                (n, 1 + n % logs, 1 + n % logs, now, n // logs, False, PART)
                for n in range(at, min(at + BATCH, count))
            ]
            await connection.copy_records_to_table("least_parts", records=records)
        for job_id in range(logs):
            await connection.execute("INSERT INTO least_logs VALUES ($1, $2)", job_id, PART * PARTS)
        used: int = await connection.fetchval(WAL) - before
        await connection.execute("DROP TABLE least_parts, least_logs")
    return used / logs


async def actions(client: Client, jobs: range) -> Counter[str]:
    """Temporal's billable actions over the histories of all logs, by kind."""
    counted: Counter[str] = Counter()
    for job_id in jobs:
        counted += billed(await client.get_workflow_handle(workflow_id(job_id)).fetch_history())
    return counted


def billed(history: WorkflowHistory) -> Counter[str]:
    """The actions of one history. A signal that starts the workflow is one action, not two."""
    counted: Counter[str] = Counter()
    tasks = set()
    for event in history.events:
        kind = ACTIONS.get(EventType.ValueType(event.event_type))
        if event.event_type == EventType.EVENT_TYPE_MARKER_RECORDED:
            # All local activities of one workflow task are one action.
            task = event.marker_recorded_event_attributes.workflow_task_completed_event_id
            if task in tasks:
                continue
            tasks.add(task)
        if event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_STARTED and kind:
            counted[kind] += event.activity_task_started_event_attributes.attempt
        elif kind:
            counted[kind] += 1
    return counted


def each(counts: Counter[str], logs: int) -> str:
    """The counts per log of each kind."""
    return ", ".join(f"{kind} {count / logs:.2f}" for kind, count in counts.most_common())
