"""What parts and logs cost: CPU, memory, rows, WAL, Temporal actions and S3 requests.

`python -m bench.sizing [LOGS [RATE]]`: LOGS logs of 100 KiB (default 300) come in at once, RATE
parts of 1 KiB a second (default 1,000) while no worker runs; then all of them end, and a worker
carries them through their lives. The times are production's, but short: no timer is left out.
"""

import asyncio
import os
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aio_pika
import asyncpg
import msgspec
import psutil
import uvloop
from temporalio.api.enums.v1 import EventType
from temporalio.client import Client, WorkflowHistory

import temporal
import wire
from bench.apart import Say, apart
from bench.servers import cpu_seconds, servers
from db.connect import open_pool
from stack.stack import LocalStack
from workflows.types import workflow_id

LOGS, RATE = 300, 1_000
PARTS = 100
TEXT = "0123456789abcde\n" * 64  # 1 KiB
TICK_SECONDS = 0.05
TIMES = {"settle_seconds": 1, "gap_seconds": 1, "purge_seconds": 1}
TABLES = ("log_parts", "logs", "log_attempts")
# What Temporal bills: https://docs.temporal.io/evaluate/cloud/actions. Heartbeats and queries,
# which leave no event, come on top; a log of this size has none.
ACTIONS = {
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED: "signals, the start among them",
    EventType.EVENT_TYPE_TIMER_STARTED: "timers",
    EventType.EVENT_TYPE_ACTIVITY_TASK_STARTED: "activities",
    EventType.EVENT_TYPE_MARKER_RECORDED: "workflow tasks with local activities",
    EventType.EVENT_TYPE_UPSERT_WORKFLOW_SEARCH_ATTRIBUTES: "search attributes",
}


async def main(logs: int, rate: int) -> None:
    """Measure both and print what each costs."""
    async with servers(lifecycle=TIMES) as (stack, settings), AsyncExitStack() as held:
        pool = await open_pool(settings.database, 2)
        held.push_async_callback(pool.close)
        client = await temporal.connect(settings.temporal)
        url = settings.amqp.url.get_secret_value()
        await stack.up(["drain"])
        begun = await Costs.now(stack, pool)
        async with apart(publish_parts, url, logs, rate) as published:
            seconds = await published()
        while await rows(pool, "log_parts") < logs * PARTS:
            await asyncio.sleep(0.05)
        received = await Costs.now(stack, pool)
        received.told(begun, logs * PARTS / 1000, "1,000 parts")
        print(f"published at {logs * PARTS / seconds:,.0f} parts/s")
        notes = stack.home.data_dir / "requests"
        async with counted_worker(stack, notes) as worker:
            received = await Costs.now(stack, pool, worker)
            async with apart(publish_finals, url, logs) as published:
                await published()
            await until_closed(client, logs)
            (await Costs.now(stack, pool, worker)).told(received, logs / 100, "100 logs")
        told_counts("S3 requests", Counter(notes.read_text().split()), logs)
        told_counts("Temporal actions", await actions(client, logs), logs)


class Costs(msgspec.Struct):
    """What was used until now; `memory` in bytes is what is held, shared pages divided up."""

    cpu: dict[str, float]
    memory: dict[str, int]
    rows: dict[str, int]
    wal: int

    @classmethod
    async def now(
        cls, stack: LocalStack, pool: asyncpg.Pool, worker: psutil.Process | None = None
    ) -> "Costs":
        """Look at the stack's processes, and the worker's if there is one."""
        cpu = cpu_seconds(stack)
        pids = {item.name: item.pid for item in stack.status() if item.pid}
        if worker:
            times = worker.cpu_times()
            cpu["worker"], pids["worker"] = times.user + times.system, worker.pid
        counts = {table: await rows(pool, table) for table in TABLES}
        wal = await pool.fetchval("SELECT pg_current_wal_lsn() - '0/0'")
        return cls(cpu, {name: held(pid) for name, pid in pids.items()}, counts, int(wal))

    def told(self, before: "Costs", units: float, unit: str) -> None:
        """Print what was used since `before`, for each of so many units."""
        spent = {name: seconds - before.cpu.get(name, 0.0) for name, seconds in self.cpu.items()}
        for name, seconds in {**spent, "all": sum(spent.values())}.items():
            memory = f"{self.memory[name] / 2**20:6.0f} MiB" if name in self.memory else ""
            print(f"{name:<14}{seconds / units:8.3f} CPU s per {unit}  {memory}")
        for table, count in self.rows.items():
            print(f"{table:<14}{(count - before.rows[table]) / units:8,.0f} rows per {unit}")
        print(f"{'WAL':<14}{(self.wal - before.wal) / units / 1e6:8.2f} MB per {unit}")


def held(pid: int) -> int:
    """Bytes of memory of a process and its children; pages they share count once."""
    root = psutil.Process(pid)
    return sum(one.memory_full_info().pss for one in (root, *root.children(recursive=True)))


async def rows(pool: asyncpg.Pool, table: str) -> int:
    """How many rows there are."""
    count: int = await pool.fetchval(f"SELECT count(*) FROM {table}")  # noqa: S608 - our names
    return count


async def publish_parts(say: Say, url: str, logs: int, rate: int) -> None:
    """Publish all but the final parts, in turn, at the rate; says the seconds it took."""
    began, sent = time.perf_counter(), 0
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel(publisher_confirms=False)
        exchange = await wire.declare(channel)
        for number in range(PARTS):
            for job_id in range(1, logs + 1):
                await exchange.publish(part(job_id, number, TEXT), wire.ROUTING_KEY)
                sent += 1
                if sent % max(1, int(rate * TICK_SECONDS)) == 0:
                    await asyncio.sleep(began + sent / rate - time.perf_counter())
    say(time.perf_counter() - began)


async def publish_finals(say: Say, url: str, logs: int) -> None:
    """Publish every log's final part."""
    async with await aio_pika.connect(url) as connection:
        exchange = await wire.declare(await connection.channel())
        for job_id in range(1, logs + 1):
            await exchange.publish(part(job_id, PARTS, "", final=True), wire.ROUTING_KEY)
    say(None)


def part(job_id: int, number: int, text: str, *, final: bool = False) -> aio_pika.Message:
    """One part, as a runner sends it."""
    body = {"id": job_id, "number": number, "log": text, "uuid": "run", "final": final}
    return aio_pika.Message(msgspec.json.encode(body), delivery_mode=2, timestamp=datetime.now(UTC))


@asynccontextmanager
async def counted_worker(stack: LocalStack, notes: Path) -> AsyncIterator[psutil.Process]:
    """Run the worker so that its requests to the archive are noted."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.counted", str(notes)),
        env={**os.environ, "LOGFLUME_STACK__DATA_DIR": str(stack.home.data_dir)},
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stderr  # noqa: S101 - asked for
        while b"worker_started" not in (line := await process.stderr.readline()):
            if not line:
                raise RuntimeError("the worker did not start")
        yield psutil.Process(process.pid)
    finally:
        process.terminate()
        await process.communicate()


async def until_closed(client: Client, logs: int) -> None:
    """Wait until the workflow of each log has ended."""
    closed = "WorkflowType = 'LogLifecycle' AND ExecutionStatus = 'Completed'"
    while (await client.count_workflows(closed)).count < logs:
        await asyncio.sleep(0.25)


async def actions(client: Client, logs: int) -> Counter[str]:
    """Temporal's billable actions over the histories of all logs, by kind."""
    counted: Counter[str] = Counter()
    for job_id in range(1, logs + 1):
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


def told_counts(name: str, counts: Counter[Any], logs: int) -> None:
    """Print how many of each kind there are for a log."""
    kinds = ", ".join(f"{kind} {count / logs:.2f}" for kind, count in counts.most_common())
    print(f"{name} per log: {counts.total() / logs:.2f} ({kinds})")


if __name__ == "__main__":
    args = [int(argument) for argument in sys.argv[1:]]
    uvloop.run(main(*args, *(LOGS, RATE)[len(args) :]))
