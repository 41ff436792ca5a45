"""Ingest: parts per second from a full queue to committed rows and acks.

Signals and the live check are included. 100 parts of 1 KiB per job wait in the queue. Before and
after the drain, aio-pika alone consumes and acknowledges the same number of messages.
"""

import asyncio
import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import NamedTuple

import aio_pika
import psutil
from aio_pika.abc import AbstractIncomingMessage

from bench.figures import Figure
from bench.publish import preload
from bench.servers import Bench, cpu_seconds, peak_rss, process
from bench.subprocess_worker import Send, subprocess_worker
from logflume import contract

PARTS_OF_A_JOB = 100
MOST_JOBS = 1_000
BATCH = 1_000
PREFETCH = 8 * BATCH
WAITING, WAITING_SECONDS = 1_000_000, 20
# The absolute target applies to machines where aio-pika alone reaches about 12,000 parts/s.
ABOUT_12_000 = 11_000
CORES_FOR_TWO = 4
LAST_ID = "SELECT last_value FROM log_parts_id_seq"
STORED = """
SELECT count(*) FROM log_parts
WHERE log_id IN (SELECT id FROM logs WHERE job_id BETWEEN $1 AND $2)
"""
COMMITTED = """
SELECT count(*) AS parts, extract(epoch FROM max(at))::float8 AS last
FROM (
    SELECT pg_xact_commit_timestamp(xmin) AS at FROM log_parts
    WHERE log_id IN (SELECT id FROM logs WHERE job_id BETWEEN $1 AND $2)
) p
WHERE at > to_timestamp($3::float8)
"""


class Drained(NamedTuple):
    """Drained `parts` in `seconds` once all drains ran, with `cpu` seconds by process.

    `peak`: peak RSS of the stack's drain in MB.
    """

    parts: int
    seconds: float
    cpu: dict[str, float]
    peak: float

    @property
    def rate(self) -> float:
        """Parts per second."""
        return self.parts / self.seconds


async def measure(bench: Bench) -> list[Figure]:
    """Measure one drain, two drains, and one with a long queue."""
    parts = 20_000 if bench.quick else 100_000
    before = await consumed(bench, parts)
    one = await drained(bench, parts)
    await bench.clean()
    alone = (before + await consumed(bench, parts)) / 2
    two = await drained(bench, parts, more=1)
    await bench.clean()
    cores = psutil.cpu_count() or 1
    cpu = {name: 1000 * seconds / one.parts for name, seconds in one.cpu.items()}
    note = ", ".join(f"{name} {seconds:.3f}" for name, seconds in cpu.items() if seconds > 0.0005)
    absolute = 12_000 if alone >= ABOUT_12_000 else None
    figures = [
        Figure("aio-pika alone, consume and ack", alone, "parts/s"),
        Figure("one drain", one.rate, "parts/s", absolute),
        Figure("one drain, of aio-pika alone", 100 * one.rate / alone, "%", 80),
        Figure(
            "CPU of all processes per 1,000 parts",
            sum(cpu.values()),
            "s",
            0.12,
            less=True,
            note=note,
        ),
        Figure(
            "two drains, of one",
            two.rate / one.rate,
            "times",
            1.5 if cores >= CORES_FOR_TWO else None,
            note=f"on {cores} cores",
        ),
        Figure(f"memory of a drain, {parts:,} waiting", one.peak, "MB", 150, less=True),
    ]
    if not bench.quick:
        figures += await before_a_long_queue(bench)
    return figures


async def fill(bench: Bench, parts: int) -> range:
    """Fill the queue with `parts` parts; returns their jobs."""
    jobs = bench.jobs(min(parts // PARTS_OF_A_JOB, MOST_JOBS))
    async with subprocess_worker(preload, bench.amqp_url, jobs, parts) as receive:
        await receive()
    while await waiting(bench) < parts:
        await asyncio.sleep(0.05)
    return jobs


async def waiting(bench: Bench) -> int:
    """How many parts are ready in the queue."""
    async with await aio_pika.connect(bench.amqp_url) as connection:
        queue = await (await connection.channel()).declare_queue(contract.QUEUE, passive=True)
        return queue.declaration_result.message_count or 0


async def consumed(bench: Bench, parts: int) -> float:
    """Parts per second that aio-pika alone consumes."""
    await fill(bench, parts)
    async with subprocess_worker(consume, bench.amqp_url, parts) as receive:
        rate: float = await receive()
    return rate


async def consume(send: Send, url: str, parts: int) -> None:
    """Consume by callback with an ack per 1,000; sends the rate."""
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        await channel.set_qos(prefetch_count=PREFETCH)
        queue = await channel.get_queue(contract.QUEUE)
        done, seen = asyncio.Event(), 0

        async def receive(message: AbstractIncomingMessage) -> None:
            nonlocal seen
            seen += 1
            if seen % BATCH == 0 or seen == parts:
                await message.ack(multiple=True)
            if seen == parts:
                done.set()

        began = time.perf_counter()
        await queue.consume(receive)
        await done.wait()
        send(parts / (time.perf_counter() - began))


async def drained(bench: Bench, parts: int, more: int = 0) -> Drained:
    """Drain `parts` waiting parts with the stack's drain and `more` others."""
    jobs = await fill(bench, parts)
    ids = (jobs.start, jobs.stop - 1)
    first: int = await bench.pool.fetchval(LAST_ID)
    async with AsyncExitStack() as held:
        starting = [
            held.enter_async_context(process(bench.stack, "drain", _logflume(), "drain"))
            for _ in range(more)
        ]
        await asyncio.gather(bench.stack.up(["drain"]), *starting)
        began, cpu = time.time(), cpu_seconds(bench.stack)
        # The sequence is cheap to query, but also counts uncommitted rows.
        while await bench.pool.fetchval(LAST_ID) < first + parts - 1:
            await asyncio.sleep(0.1)
        while await bench.pool.fetchval(STORED, *ids) < parts:
            await asyncio.sleep(0.1)
        theirs = f"JobId >= {jobs.start} AND JobId < {jobs.stop}"
        while (await bench.client.count_workflows(theirs)).count < len(jobs):
            await asyncio.sleep(0.25)
        used = {name: seconds - cpu[name] for name, seconds in cpu_seconds(bench.stack).items()}
        peak = peak_rss(bench.pid("drain"))
        row = await bench.pool.fetchrow(COMMITTED, *ids, began)
    assert row  # noqa: S101 - aggregates always have a row
    await bench.stack.down(["drain"])
    if left := await waiting(bench):
        raise RuntimeError(f"{left} parts were not acknowledged")
    if not row["parts"]:
        raise RuntimeError("all parts were stored before every drain ran")
    return Drained(row["parts"], row["last"] - began, used, peak)


def _logflume() -> str:
    return str(Path(sys.executable).with_name("logflume"))


async def before_a_long_queue(bench: Bench) -> list[Figure]:
    """Memory of a drain with a long queue."""
    await fill(bench, WAITING)
    await bench.stack.up(["drain"])
    await asyncio.sleep(WAITING_SECONDS)
    pid, left = bench.pid("drain"), await waiting(bench)
    now, peak = psutil.Process(pid).memory_info().rss / 1e6, peak_rss(pid)
    await bench.clean()
    note = f"{now:.0f} MB after {WAITING_SECONDS} s, {left:,} still waiting"
    return [
        Figure(f"memory of a drain, {WAITING:,} waiting", peak, "MB", 150, less=True, note=note)
    ]
