"""How long a part takes from the runner to a browser: publish, drain, commit, wake-up, event.

`python -m bench.live [SECONDS]`: stamps parts of 1 KiB of one job at 20/s for SECONDS (default 10)
and tells when they came out of `/stream`: at rest, beside 1,000 parts/s of 100 other jobs that
nobody reads, and beside the same with a reader each. Drain, web and readers are processes of
their own.
"""

import asyncio
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack
from typing import NamedTuple

import aio_pika
import asyncpg
import msgspec
import uvloop
from aio_pika.abc import AbstractExchange

import wire
from bench.apart import apart
from bench.figures import told
from bench.logs import PART
from bench.readers import Seen, read_streams, stamped
from bench.servers import Server, cpu_seconds, servers, web_server
from db import reading
from db.connect import open_pool

SECONDS = 10.0
RATE = 20
OTHERS, OTHERS_RATE = 100, 1_000
TICK_SECONDS = 0.005


class Run(NamedTuple):
    """Jobs that are read and jobs that are not; the first of all is the one measured."""

    name: str
    read: Sequence[int]
    unread: Sequence[int] = ()

    @property
    def others(self) -> list[int]:
        """All but the one measured."""
        return [*self.read[1:], *self.unread]


RUNS = (
    Run("at rest", [1]),
    Run("beside 100 jobs, 1,000 parts/s", [1_000], range(1_001, 1_001 + OTHERS)),
    Run("the same, each with a reader", range(2_000, 2_001 + OTHERS)),
)


async def main(seconds: float) -> None:
    """Measure each run in turn."""
    async with servers() as (stack, settings), AsyncExitStack() as held:
        pool = await open_pool(settings.database)
        held.push_async_callback(pool.close)
        await stack.up(["drain", "web"])
        connection = await aio_pika.connect(settings.amqp.url.get_secret_value())
        await held.enter_async_context(connection)
        exchange = await wire.declare(await connection.channel(publisher_confirms=False))
        for run in RUNS:
            before = cpu_seconds(stack)
            seen = await measure(exchange, pool, web_server(settings), run, seconds)
            after = cpu_seconds(stack)
            print(f"{run.name:<32}{told(seen.of(run.read[:1]))}")
            if run.read[1:]:
                print(f"{'  and of the others':<32}{told(seen.of(run.read[1:]))}")
            parts = seconds * (RATE + bool(run.others) * OTHERS_RATE)
            names = ("drain", "web", "postgres")
            costs = [f"{name} {1000 * (after[name] - before[name]) / parts:.2f}" for name in names]
            print(f"{'  CPU for a part, ms':<32}{', '.join(costs)}")
            if seen.sent_away:
                print(f"{'  readers sent away':<32}{seen.sent_away}")


async def measure(
    exchange: AbstractExchange, pool: asyncpg.Pool, web: Server, run: Run, seconds: float
) -> Seen:
    """Open the streams, publish, and hear what came out of them."""
    jobs = [*run.read, *run.unread]
    for job_id in jobs:
        await publish(exchange, job_id, 0, PART)
    async with pool.acquire() as connection:
        while len(await reading.find_many(connection, jobs)) < len(jobs):
            await asyncio.sleep(0.05)
    async with apart(read_streams, web, [*run.read]) as hear:
        await hear()
        work = [pour(exchange, run.read[:1], RATE, seconds)]
        if run.others:
            work.append(pour(exchange, run.others, OTHERS_RATE, seconds))
        await asyncio.gather(*work)
        seen: Seen = await hear()
        return seen


async def pour(
    exchange: AbstractExchange, jobs: Sequence[int], rate: float, seconds: float
) -> None:
    """Publish stamped parts of the jobs in turn, at a rate; the last one ends each log."""
    rounds = round(rate * seconds / len(jobs))
    began = time.monotonic()
    for place, (number, job_id) in enumerate(_turns(jobs, rounds)):
        while (early := began + place / rate - time.monotonic()) > 0:
            await asyncio.sleep(max(early, TICK_SECONDS))
        await publish(exchange, job_id, number, stamped(), final=number == rounds)


def _turns(jobs: Iterable[int], rounds: int) -> Iterable[tuple[int, int]]:
    return ((number, job_id) for number in range(1, rounds + 1) for job_id in jobs)


async def publish(
    exchange: AbstractExchange, job_id: int, number: int, content: bytes, *, final: bool = False
) -> None:
    """Publish one part, as the runners do."""
    part = {"id": job_id, "number": number, "log": content.decode(), "uuid": "run", "final": final}
    message = aio_pika.Message(msgspec.json.encode(part), delivery_mode=2)
    await exchange.publish(message, wire.ROUTING_KEY)


if __name__ == "__main__":
    uvloop.run(main(float(sys.argv[1]) if len(sys.argv) > 1 else SECONDS))
