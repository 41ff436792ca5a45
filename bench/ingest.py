"""Parts a second from a full queue to committed rows, beside what it is made of.

`python -m bench.ingest [PARTS]`: preloads PARTS messages of 1 KiB over 1,000 jobs (default 100,000)
and lets the drain take them; in the same run (a) aio-pika alone consumes and acknowledges the same
messages and (b) asyncpg alone COPYs the same rows. Also tells publish to row at 100 parts/s.
"""

import asyncio
import json
import sys
import time
from collections.abc import Iterable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta

import aio_pika
import asyncpg
import uvloop
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage

import wire
from bench.figures import told
from bench.servers import cpu_seconds, servers
from db.connect import open_pool
from db.parts import COLUMNS
from stack.stack import LocalStack

PARTS = 100_000
JOBS = 1_000
TEXT = "0123456789abcdef" * 64  # 1 KiB
BATCH = 1_000
CONNECTIONS = 3
RATE, RATED = 100, 500


async def main(parts: int) -> None:
    """Measure all three in one run and print the ratios."""
    async with servers() as (stack, settings), AsyncExitStack() as held:
        pool = await open_pool(settings.database, CONNECTIONS)
        held.push_async_callback(pool.close)
        url = settings.amqp.url.get_secret_value()
        connection = await held.enter_async_context(await aio_pika.connect(url))
        channel = await connection.channel(publisher_confirms=False)
        await wire.declare(channel)
        bodies = [message(number) for number in range(parts)]
        await publish(channel, bodies)
        consumed = await consume_only(connection, parts)
        await publish(channel, bodies)
        copied = await copy_only(pool, parts)
        await pool.execute("TRUNCATE log_parts")
        drained, used = await drain(stack, pool, parts)
        print(f"drain, queue to rows      {drained:10,.0f} parts/s")
        for name, rate in (("aio-pika, consume and ack", consumed), ("asyncpg COPY", copied)):
            print(f"{name:<26}{rate:10,.0f} parts/s, ratio {drained / rate:.2f}")
        for name, seconds in {**used, "all": sum(used.values())}.items():
            print(f"CPU of {name:<19}{1000 * seconds / parts:10.3f} s per 1,000 parts")
        waits = await latencies(channel, pool)
        print(f"publish to row at {RATE} parts/s: {told(waits)}")


def message(number: int, job: int | None = None) -> bytes:
    """One part of one of the jobs, in turn."""
    job_id = 1 + number % JOBS if job is None else job
    part = {"id": job_id, "number": number // JOBS, "log": TEXT, "uuid": "run", "final": False}
    return json.dumps(part).encode()


async def publish(channel: AbstractChannel, bodies: Iterable[bytes]) -> None:
    """Fill the queue."""
    exchange = await channel.get_exchange(wire.EXCHANGE)
    for body in bodies:
        await exchange.publish(
            aio_pika.Message(body, delivery_mode=2, timestamp=datetime.now(UTC)), wire.ROUTING_KEY
        )


async def consume_only(connection: aio_pika.abc.AbstractConnection, parts: int) -> float:
    """What aio-pika's callback consumer alone does a second, acks in thousands."""
    channel = await connection.channel()
    await channel.set_qos(prefetch_count=8 * BATCH)
    done, seen = asyncio.Event(), 0

    async def receive(message: AbstractIncomingMessage) -> None:
        nonlocal seen
        seen += 1
        if seen % BATCH == 0 or seen == parts:
            await message.ack(multiple=True)
        if seen == parts:
            done.set()

    began = time.perf_counter()
    await (await channel.get_queue(wire.QUEUE)).consume(receive)
    await done.wait()
    seconds = time.perf_counter() - began
    await channel.close()
    return parts / seconds


async def copy_only(pool: asyncpg.Pool, parts: int) -> float:
    """What asyncpg alone COPYs a second, as many connections as the drain has flushes."""
    content, now = TEXT.encode(), datetime.now(UTC)
    rows = [
        (1 + n % JOBS, 1 + n % JOBS, now + timedelta(0, 0, n), n // JOBS, False, content)
        for n in range(parts)
    ]
    places = asyncio.Semaphore(CONNECTIONS)

    async def copy(batch: list[tuple[object, ...]]) -> None:
        async with places, pool.acquire() as connection:
            await connection.copy_records_to_table("log_parts", records=batch, columns=COLUMNS)

    began = time.perf_counter()
    await asyncio.gather(*(copy(rows[at : at + BATCH]) for at in range(0, parts, BATCH)))
    return parts / (time.perf_counter() - began)


async def drain(
    stack: LocalStack, pool: asyncpg.Pool, parts: int
) -> tuple[float, dict[str, float]]:
    """What the drain's own process does a second, and the CPU seconds of every process."""
    before = cpu_seconds(stack)
    up = asyncio.create_task(stack.up(["drain"]))
    while not await pool.fetchval("SELECT EXISTS (SELECT FROM log_parts)"):
        await asyncio.sleep(0.01)
    began = time.perf_counter()
    while await pool.fetchval("SELECT count(*) FROM log_parts") < parts:
        await asyncio.sleep(0.1)
    seconds = time.perf_counter() - began
    await up
    after = cpu_seconds(stack)
    return parts / seconds, {name: after[name] - before.get(name, 0.0) for name in after}


async def latencies(channel: AbstractChannel, pool: asyncpg.Pool) -> list[float]:
    """Seconds from publish until the row can be seen."""
    waits = []
    exchange = await channel.get_exchange(wire.EXCHANGE)
    async with pool.acquire() as connection:
        look = await connection.prepare(
            "SELECT count(*) FROM log_parts WHERE log_id = (SELECT id FROM logs WHERE job_id = $1)"
        )
        for number in range(RATED):
            began = time.perf_counter()
            body = message(0, job=10_000_000 + number)
            await exchange.publish(aio_pika.Message(body, delivery_mode=2), wire.ROUTING_KEY)
            while not await look.fetchval(10_000_000 + number):
                await asyncio.sleep(0.001)
            waits.append(time.perf_counter() - began)
            await asyncio.sleep(max(0.0, 1 / RATE - waits[-1]))
    return waits


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else PARTS))
