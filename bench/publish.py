"""Publishers of parts, which run in subprocesses."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import aio_pika
from aio_pika.abc import AbstractExchange

from bench.logs import PART
from bench.readers import stamped
from bench.subprocess_worker import Send
from logflume import amqp, contract

TICK_SECONDS = 0.005


def part(job_id: int, number: int, content: bytes, *, final: bool = False) -> aio_pika.Message:
    """A part's message as a runner sends it."""
    return amqp.part_message(
        contract.PartMessage.of(job_id, number, content, uuid="run", final=final)
    )


@asynccontextmanager
async def exchange(url: str, *, confirms: bool = False) -> AsyncIterator[AbstractExchange]:
    """The exchange of the parts."""
    async with await aio_pika.connect(url) as connection:
        yield await amqp.declare(await connection.channel(publisher_confirms=confirms))


async def preload(send: Send, url: str, jobs: range, parts: int) -> None:
    """Publish parts of 1 KiB for the jobs in turn."""
    async with exchange(url) as target:
        for sent in range(parts):
            number, place = divmod(sent, len(jobs))
            await target.publish(part(jobs[place], number, PART), contract.ROUTING_KEY)
    send(None)


async def pour(send: Send, url: str, jobs: Sequence[int], rate: float, rounds: int) -> None:
    """Publish stamped parts 1 to `rounds` of the jobs in turn at `rate`; the last are final."""
    async with exchange(url) as target:
        began, sent = time.monotonic(), 0
        for number in range(1, rounds + 1):
            for job_id in jobs:
                while (early := began + sent / rate - time.monotonic()) > 0:
                    await asyncio.sleep(max(early, TICK_SECONDS))
                message = part(job_id, number, stamped(), final=number == rounds)
                await target.publish(message, contract.ROUTING_KEY)
                sent += 1
    send(None)


async def finish(send: Send, url: str, jobs: range, number: int) -> None:
    """Publish every job's empty final part."""
    async with exchange(url, confirms=True) as target:
        for job_id in jobs:
            await target.publish(part(job_id, number, b"", final=True), contract.ROUTING_KEY)
    send(None)
