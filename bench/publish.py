"""Publishers of parts, each run in a process of its own."""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import aio_pika
from aio_pika.abc import AbstractExchange

from bench.logs import PART
from bench.readers import stamped
from bench.subprocess_worker import Say
from logflume import amqp, contract

TICK_SECONDS = 0.005


def part(job_id: int, number: int, content: bytes, *, final: bool = False) -> aio_pika.Message:
    """One part, as a runner sends it."""
    return amqp.part_message(
        contract.PartMessage.of(job_id, number, content, uuid="run", final=final)
    )


@asynccontextmanager
async def exchange(url: str, *, confirms: bool = False) -> AsyncIterator[AbstractExchange]:
    """Where parts are published."""
    async with await aio_pika.connect(url) as connection:
        yield await amqp.declare(await connection.channel(publisher_confirms=confirms))


async def preload(say: Say, url: str, jobs: range, parts: int, rate: float = math.inf) -> None:
    """Publish so many parts of 1 KiB of the jobs, in turn, `rate` a second; says the seconds."""
    async with exchange(url) as target:
        began = time.monotonic()
        for sent in range(parts):
            await _when(began + sent / rate)
            number, place = divmod(sent, len(jobs))
            await target.publish(part(jobs[place], number, PART), contract.ROUTING_KEY)
    say(time.monotonic() - began)


async def pour(say: Say, url: str, jobs: Sequence[int], rate: float, rounds: int) -> None:
    """Publish stamped parts 1 to `rounds` of the jobs in turn, `rate` a second, the last final."""
    async with exchange(url) as target:
        began, sent = time.monotonic(), 0
        for number in range(1, rounds + 1):
            for job_id in jobs:
                await _when(began + sent / rate)
                message = part(job_id, number, stamped(), final=number == rounds)
                await target.publish(message, contract.ROUTING_KEY)
                sent += 1
    say(None)


async def finish(say: Say, url: str, jobs: range, number: int) -> None:
    """Publish every job's final part, an empty one."""
    async with exchange(url, confirms=True) as target:
        for job_id in jobs:
            await target.publish(part(job_id, number, b"", final=True), contract.ROUTING_KEY)
    say(None)


async def _when(moment: float) -> None:
    while (early := moment - time.monotonic()) > 0:
        await asyncio.sleep(max(early, TICK_SECONDS))
