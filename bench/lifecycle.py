"""Finished logs a second, from stored parts to the purge, beside a bare workflow.

`python -m bench.lifecycle [LOGS]`: stores LOGS logs of 100 KiB (default 300), starts their
workflows and waits until all are purged; then does the same number of workflows of four empty
activities on the same server. Also tells the seconds from final part to verified of one log alone.
"""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import asyncpg
from temporalio.client import Client
from temporalio.worker import Worker

import temporal
from bench.bare import Bare, nothing
from bench.figures import percentile
from bench.logs import PART, store
from bench.servers import servers
from db import reading
from db.connect import open_pool
from drain.signals import Signaller
from settings import Settings
from workflows.signals import LogWorkflows
from workflows.types import Batch, LifecycleOptions, workflow_id

LOGS = 300
ALONE = 10
PARTS = 100
TIMES = {"settle_seconds": 0, "gap_seconds": 0, "purge_seconds": 0}


async def main(count: int) -> None:
    """Measure both in one run and print the ratio."""
    async with servers(lifecycle=TIMES) as (stack, settings), AsyncExitStack() as held:
        client = await temporal.connect(settings.temporal)
        pool = await open_pool(settings.database)
        held.push_async_callback(pool.close)
        await stack.up(["worker"])
        async with signalling(client, settings) as tell:
            alone = [await one_alone(pool, tell, job_id) for job_id in range(ALONE)]
            jobs = range(1000, 1000 + count)
            await asyncio.gather(*(store(pool, job_id, PARTS) for job_id in jobs))
            full = await rate(count, lambda: finish(client, tell, jobs))
        events = (await client.get_workflow_handle(workflow_id(1000)).describe()).history_length
        await stack.down(["worker"])
        worker = Worker(client, task_queue="bare", workflows=[Bare], activities=[nothing])
        async with worker:
            bare = await rate(count, lambda: run_bare(client, count))
    print(f"whole lives           {full:8.1f} logs/s, {events} history events a log")
    print(f"four empty activities {bare:8.1f} workflows/s")
    print(f"ratio                 {full / bare:8.2f}")
    middle = percentile(alone, 50)
    print(f"final part to verified, one log at a time, settle 0: median {middle:.3f} s")


async def rate(count: int, work: Callable[[], Awaitable[None]]) -> float:
    """How many a second, over the whole of the work."""
    began = time.perf_counter()
    await work()
    return count / (time.perf_counter() - began)


@asynccontextmanager
async def signalling(client: Client, settings: Settings) -> AsyncIterator[Signaller]:
    """The drain's own signaller."""
    options = LifecycleOptions(**settings.lifecycle.model_dump())
    workflows = LogWorkflows(client, settings.temporal.task_queue, options)
    signaller = Signaller(workflows, interval=1, in_flight=32)
    yield signaller
    await signaller.close(60)


async def finish(client: Client, tell: Signaller, jobs: range) -> None:
    """Signal every log's end and wait until each workflow is closed."""
    for job_id in jobs:
        tell.add(job_id, Batch(PARTS + 1, PARTS * len(PART), final=True, begun=True))
    closed = f"ExecutionStatus = 'Completed' AND JobId >= {jobs.start}"
    while (await client.count_workflows(closed)).count < len(jobs):
        await asyncio.sleep(0.25)


async def one_alone(pool: asyncpg.Pool, tell: Signaller, job_id: int) -> float:
    """Seconds from the final part's commit until the archive is verified, on an idle system."""
    await store(pool, job_id, PARTS)
    ended = datetime.now(UTC)
    tell.add(job_id, Batch(PARTS + 1, PARTS * len(PART), final=True, begun=True))
    while True:
        async with pool.acquire() as connection:
            log = await reading.find(connection, job_id)
        if log.archived_at:
            return (log.archived_at - ended).total_seconds()
        await asyncio.sleep(0.01)


async def run_bare(client: Client, count: int) -> None:
    """Start bare workflows, as many at once as the signaller starts, and wait for all."""
    places = asyncio.Semaphore(32)

    async def start(number: int) -> Any:
        async with places:
            return await client.start_workflow(Bare.run, id=f"bare-{number}", task_queue="bare")

    handles = await asyncio.gather(*map(start, range(count)))
    await asyncio.gather(*(handle.result() for handle in handles))


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else LOGS))
