"""What stays within bounds: the drain's memory in an outage and a storm, the sweep among many logs.

`python -m bench.bounds [MESSAGES [SECONDS [WORKFLOWS]]]`: MESSAGES of 1 KiB (default 100,000), and
then a fiftieth as many of 256 KiB, wait while Postgres is frozen for SECONDS (default 60); half as
many messages that are no parts come beside some that are; a sweep, queries and lists run while 100
and while WORKFLOWS (default 10,000) workflows are open.
"""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

import aio_pika
import asyncpg
import msgspec
import psutil
import uvloop
from temporalio.client import Client

from bench.figures import percentile
from bench.logs import store
from bench.servers import servers
from db.connect import open_pool
from logflume import amqp, contract
from logflume.settings import Settings
from logflume_cli.devstack.stack import LocalStack
from logflume_cli.services import make_workflows
from workflows.client.connection import connect_temporal
from workflows.lifecycle_types import (
    LIFECYCLE_QUERY,
    PartsStored,
    workflow_id,
)
from workflows.sweep import Sweep, SweepInput

MESSAGES, SECONDS, WORKFLOWS = 100_000, 60, 10_000
KIB, MIB = 1024, 1024 * 1024
JOBS = 1_000
FEW = 100
ASKED = 100
ROUNDS = 5
SWEPT_LOGS = 500
AT_ONCE = 64
TIMES = {"settle_seconds": 3600, "gap_seconds": 3600, "idle_timeout_seconds": 86400}


async def main(messages: int, seconds: float, workflows: int) -> None:
    """Measure all three."""
    await memory(messages, seconds)
    await crowds(workflows)


async def memory(messages: int, seconds: float) -> None:
    """How the drain's memory goes in outages of Postgres and in a storm of rejects."""
    async with servers() as (stack, settings), AsyncExitStack() as held:
        pool = await open_pool(settings.database, 8)
        held.push_async_callback(pool.close)
        connection = await aio_pika.connect(settings.amqp.url.get_secret_value())
        await held.enter_async_context(connection)
        channel = await connection.channel(publisher_confirms=False)
        await amqp.declare(channel)
        for size, count in ((KIB, messages), (256 * KIB, messages // 50)):
            await pool.execute("TRUNCATE log_parts")
            await outage(stack, pool, channel, Load(count, size), seconds)
        await pool.execute("TRUNCATE log_parts")
        await storm(stack, pool, channel, messages // 2)


async def crowds(workflows: int) -> None:
    """How long things take among few and among many open workflows."""
    async with servers(lifecycle=TIMES) as (stack, settings), AsyncExitStack() as held:
        pool = await open_pool(settings.database, 8)
        held.push_async_callback(pool.close)
        await stack.up(["worker"])
        client = await connect_temporal(settings.temporal)
        before = await crowd(client, pool, settings, 0, FEW)
        after = await crowd(client, pool, settings, FEW, workflows)
        for name, waits in after.items():
            few, many = (percentile(each, 50) for each in (before[name], waits))
            print(
                f"{name:<28}{FEW} open {1000 * few:8.1f} ms, {workflows} open {1000 * many:8.1f} ms"
                f", ratio {many / few:.2f}"
            )


class Load(msgspec.Struct):
    """So many messages, of so many bytes each."""

    count: int
    size: int


async def outage(
    stack: LocalStack,
    pool: asyncpg.Pool,
    channel: aio_pika.abc.AbstractChannel,
    load: Load,
    seconds: float,
) -> None:
    """Freeze Postgres under a drain with a full queue, and see it go on."""
    text = "x" * load.size
    for number in range(load.count):
        await send(channel, part(number, text))
    await stack.up(["drain"])
    at_rest = rss(stack)
    frozen = family(stack, "postgres")
    for process in frozen:
        process.suspend()
    async with sampled(stack) as samples:
        await asyncio.sleep(seconds)
        left = (await channel.declare_queue(contract.QUEUE, durable=True)).declaration_result
        for process in frozen:
            process.resume()
        while await stored(pool) < load.count:
            await asyncio.sleep(0.25)
    parts = await stored(pool)
    different = await pool.fetchval("SELECT count(DISTINCT (log_id, number)) FROM log_parts")
    print(f"{load.count} messages of {load.size // KIB} KiB, Postgres frozen for {seconds:.0f} s:")
    print(f"  waiting then {left.message_count}, stored at last {parts}, different {different}")
    told_memory(at_rest, samples)
    await stack.down(["drain"])


async def storm(
    stack: LocalStack, pool: asyncpg.Pool, channel: aio_pika.abc.AbstractChannel, count: int
) -> None:
    """Messages that are no parts, a tenth as many between them that are."""
    await stack.up(["drain"])
    at_rest = rss(stack)
    before = rss(stack, "rabbitmq")
    async with sampled(stack) as samples:
        began = time.perf_counter()
        for number in range(count):
            await send(channel, b"no part %d " % number + bytes(KIB))
            if number % 10 == 0:
                await send(channel, part(number // 10, "good"))
        while await stored(pool) < count // 10:
            await asyncio.sleep(0.25)
        through = time.perf_counter() - began
        while await kept(channel) < count:
            await asyncio.sleep(0.25)
        seconds = time.perf_counter() - began
    print(f"{count} messages that are no parts: kept {await kept(channel)} in {seconds:.0f} s;")
    print(f"  {count // 10} parts between them stored after {through:.0f} s")
    told_memory(at_rest, samples)
    print(
        f"  RSS of rabbitmq {before / MIB:.0f} MiB before, {rss(stack, 'rabbitmq') / MIB:.0f} after"
    )
    await stack.down(["drain"])


async def crowd(
    client: Client, pool: asyncpg.Pool, settings: Settings, have: int, count: int
) -> dict[str, list[float]]:
    """Have so many workflows open; returns the seconds of each thing that is asked."""
    workflows = make_workflows(client, settings)
    places = asyncio.Semaphore(AT_ONCE)

    async def begin(job_id: int) -> None:
        async with places:
            await store(pool, job_id, 1)
            await workflows.parts_stored(job_id, PartsStored(1, KIB, begun=True))

    await asyncio.gather(*map(begin, range(1 + have, 1 + count)))
    # Those that have shown their phase have had their first turn: none waits for the worker then.
    opened = "LogPhase = 'receiving' AND ExecutionStatus = 'Running'"
    while (await client.count_workflows(opened)).count < count:
        await asyncio.sleep(0.5)

    async def list_open() -> None:
        async for _ in client.list_workflows("LogPhase = 'receiving'", limit=50):
            pass

    async def sweep() -> None:
        order = SweepInput(after_seconds=0, logs=SWEPT_LOGS, purge_seconds=3600)
        queue = settings.temporal.task_queue
        name = f"bench-sweep-{time.monotonic_ns()}"
        await client.execute_workflow(Sweep.run, order, id=name, task_queue=queue)

    async def query(number: int) -> None:
        job_id = 1 + number * (count // ASKED)
        await client.get_workflow_handle(workflow_id(job_id)).query(LIFECYCLE_QUERY)

    return {
        f"sweep of up to {SWEPT_LOGS} logs": [await timed(sweep) for _ in range(ROUNDS)],
        "query lifecycle": [await timed(partial(query, number)) for number in range(ASKED)],
        "list of 50 by phase": [await timed(list_open) for _ in range(ASKED)],
    }


async def timed(work: Callable[[], Awaitable[None]]) -> float:
    """How many seconds it takes."""
    began = time.perf_counter()
    await work()
    return time.perf_counter() - began


def part(number: int, text: str) -> bytes:
    """One part of one of the jobs, in turn."""
    message = contract.PartMessage.of(1 + number % JOBS, number // JOBS, text.encode(), uuid="run")
    return message.encode()


async def send(channel: aio_pika.abc.AbstractChannel, body: bytes) -> None:
    """Publish as a runner does."""
    exchange = await channel.get_exchange(contract.EXCHANGE, ensure=False)
    await exchange.publish(aio_pika.Message(body, delivery_mode=2), contract.ROUTING_KEY)


async def stored(pool: asyncpg.Pool) -> int:
    """How many parts are there."""
    count: int = await pool.fetchval("SELECT count(*) FROM log_parts")
    return count


async def kept(channel: aio_pika.abc.AbstractChannel) -> int:
    """How many rejects are there."""
    queue = await channel.declare_queue(contract.DEAD_LETTER_QUEUE, durable=True)
    return queue.declaration_result.message_count or 0


def family(stack: LocalStack, name: str) -> list[psutil.Process]:
    """A component's processes, the first of them first."""
    [root] = [psutil.Process(one.pid) for one in stack.status() if one.name == name and one.pid]
    return [root, *root.children(recursive=True)]


def rss(stack: LocalStack, name: str = "drain") -> int:
    """Bytes of memory that a component has resident."""
    return sum(process.memory_info().rss for process in family(stack, name))


@asynccontextmanager
async def sampled(stack: LocalStack) -> AsyncIterator[list[int]]:
    """Note the drain's memory each second."""
    samples: list[int] = []

    async def look() -> None:
        while True:
            samples.append(rss(stack))
            await asyncio.sleep(1)

    task = asyncio.create_task(look())
    try:
        yield samples
    finally:
        task.cancel()


def told_memory(at_rest: int, samples: Sequence[int]) -> None:
    """Print how the drain's memory went."""
    quarters = [samples[len(samples) * at // 4] / MIB for at in range(4)] + [samples[-1] / MIB]
    print(
        f"  RSS of the drain {at_rest / MIB:.0f} MiB at first, then "
        + ", ".join(f"{each:.0f}" for each in quarters)
        + f"; most {max(samples) / MIB:.0f}",
        flush=True,
    )


if __name__ == "__main__":
    given = [int(argument) for argument in sys.argv[1:]]
    uvloop.run(main(*given, *(MESSAGES, SECONDS, WORKFLOWS)[len(given) :]))
