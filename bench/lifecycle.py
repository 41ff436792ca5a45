"""Lifecycles per second, from stored parts to the purge, against a no-op workflow.

Logs of 100 KiB with verification, without settle and purge time. Half of the no-op workflows, with
four empty activities on the same server, run before and half after them.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from temporalio.client import Client, WorkflowExecution
from temporalio.worker import Worker

from bench.figures import Figure, percentile
from bench.logs import PART, store
from bench.noop_workflow import Bare, nothing
from bench.publish import exchange, part
from bench.servers import Bench
from db import reading
from logflume import contract
from logflume_cli.options import lifecycle_options
from workflows.client.logs import LogWorkflows
from workflows.client.signaller import Signaller
from workflows.lifecycle_types import PartsStored

PARTS = 100
AT_ONCE = 32
STORED = """
SELECT count(*) FROM log_parts WHERE log_id = (SELECT id FROM logs WHERE job_id = $1)
"""


async def measure(bench: Bench) -> list[Figure]:
    """Measure lifecycles and no-op workflows."""
    logs, tries = (60, 3) if bench.quick else (1_000, 20)
    bare = [await run_bare(bench.client, logs // 2, "before")]
    await bench.stack.up(["drain", "worker"])
    alone = [await one_alone(bench) for _ in range(tries)]
    jobs = bench.jobs(logs)
    await asyncio.gather(*(store(bench.pool, job_id, PARTS) for job_id in jobs))
    lives = await finished(bench, jobs)
    await bench.stack.down(["drain", "worker"])
    bare.append(await run_bare(bench.client, logs // 2, "after"))
    rate, base = logs / spanned(lives), logs // 2 * 2 / sum(bare)
    events = max(one.history_length for one in lives)
    return [
        Figure("lifecycles", rate, "logs/s"),
        Figure("four empty activities", base, "workflows/s"),
        Figure("lifecycles, of four empty activities", 100 * rate / base, "%", 85),
        Figure("history events of a log, maximum", events, "", 32, less=True),
        Figure(
            "final part published to verified, alone, without the settle time, p50",
            percentile(alone, 50),
            "s",
            0.6,
            less=True,
        ),
    ]


@asynccontextmanager
async def signalling(bench: Bench, interval: float = 1) -> AsyncIterator[Signaller]:
    """The drain's signaller, with workflow options without delays."""
    queue = bench.settings.temporal.task_queue
    options = lifecycle_options(bench.settings)
    at_rest = replace(options, settle_seconds=0, gap_seconds=0, purge_seconds=0)
    workflows = LogWorkflows(bench.client, queue, at_rest)
    signaller = Signaller(workflows, interval=interval, in_flight=AT_ONCE, max_backoff=5)
    yield signaller
    await signaller.close(60)


async def finished(
    bench: Bench, jobs: range, parts: int = PARTS, size: int = PARTS * len(PART)
) -> list[WorkflowExecution]:
    """Signal the end of every log of `size` bytes and wait until all workflows are closed."""
    async with signalling(bench) as tell:
        for job_id in jobs:
            tell.parts_stored(job_id, PartsStored(parts + 1, size, final=True, begun=True))
        return await until_closed(bench.client, jobs)


async def until_closed(client: Client, jobs: range) -> list[WorkflowExecution]:
    """Wait until the workflows of all logs are closed."""
    closed = f"ExecutionStatus = 'Completed' AND JobId >= {jobs.start} AND JobId < {jobs.stop}"
    while (await client.count_workflows(closed)).count < len(jobs):
        await asyncio.sleep(0.25)
    return [one async for one in client.list_workflows(closed)]


def spanned(lives: list[WorkflowExecution]) -> float:
    """Seconds from the first start to the last close."""
    closed = [one.close_time for one in lives if one.close_time]
    return (max(closed) - min(one.start_time for one in lives)).total_seconds()


async def one_alone(bench: Bench) -> float:
    """Seconds from publishing the final part until verified, on an idle system."""
    job_id = bench.jobs(1)[0]
    async with exchange(bench.amqp_url) as target, bench.pool.acquire() as connection:
        for number in range(PARTS):
            await target.publish(part(job_id, number, PART), contract.ROUTING_KEY)
        while await connection.fetchval(STORED, job_id) < PARTS:
            await asyncio.sleep(0.05)
        began = time.time()
        await target.publish(part(job_id, PARTS, b"", final=True), contract.ROUTING_KEY)
        while not (archived_at := (await reading.find(connection, job_id)).archived_at):
            await asyncio.sleep(0.01)
    return archived_at.timestamp() - began - bench.settings.lifecycle.settle_seconds


async def run_bare(client: Client, count: int, name: str, **options: Any) -> float:
    """Run no-op workflows with the signaller's concurrency; returns seconds until all are closed.

    `options` are passed to the worker.
    """
    places = asyncio.Semaphore(AT_ONCE)

    async def start(number: int) -> Any:
        async with places:
            return await client.start_workflow(
                Bare.run, id=f"bare-{name}-{number}", task_queue="bare"
            )

    worker = Worker(client, task_queue="bare", workflows=[Bare], activities=[nothing], **options)
    async with worker:
        handles = await asyncio.gather(*map(start, range(count)))
        await asyncio.gather(*(handle.result() for handle in handles))
    lives = [await handle.describe() for handle in handles]
    return spanned([*lives])
