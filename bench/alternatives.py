"""Ways that were tried beside the ones we took: `python -m bench.alternatives [NAME…]`.

Each is a small measurement by turns, ours and the other, three times, so that a machine whose speed
changes does not decide; what is printed is how many times ours the other reaches.
"""

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import aio_pika
import msgspec
import uvloop
from temporalio.worker import UnsandboxedWorkflowRunner

from bench.figures import number
from bench.ingest import consume, fill
from bench.lifecycle import run_bare
from bench.logs import PART
from bench.publish import part
from bench.servers import Bench, bench, cpu_seconds
from bench.subprocess_worker import Say, apart
from db.connect import open_pool
from db.parts import COLUMNS, store_batch
from logflume import contract
from logflume.domain import Part
from logflume_cli.services import make_workflows
from workflows.lifecycle_types import PartsStored

ROUNDS = 3
MESSAGES = 20_000
ROWS, BATCH, CONNECTIONS = 20_000, 1_000, 3
LOGS, LOG_BYTES = 200, 102_400
WORKFLOWS = 100
SIGNALS, SIGNALLED = 1_000, 50
QUORUM = "tried.quorum"
# About what a build says: words and numbers that come again, in other places.
LINE = b"[%07d] Compiling module_%d.c -O2 -Wall -DNDEBUG, %d warnings in %d.%03d s\n"
INSERT = """
INSERT INTO log_parts (log_id, attempt_id, created_at, number, final, content)
SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::timestamptz[], $4::int[], $5::bool[],
    $6::bytea[])
"""

Rate = Callable[[], Awaitable[float]]


async def beside(name: str, unit: str, ours: Rate, *others: tuple[str, Rate]) -> None:
    """Measure by turns and print each other's rate and how many times ours it is."""
    ways = [("ours", ours), *others]
    found: dict[str, list[float]] = {way: [] for way, _ in ways}
    for _ in range(ROUNDS):
        for way, rate in ways:
            found[way].append(await rate())
    middle = {way: sorted(rates)[ROUNDS // 2] for way, rates in found.items()}
    for way, reached in middle.items():
        ratio = "" if way == "ours" else f"{reached / middle['ours']:.2f}"
        print(f"| {name} | {way} | {number(reached)} {unit} | {ratio} |", flush=True)


async def consumer(here: Bench) -> None:
    """A callback against the queue's iterator, uvloop against asyncio's own, a quorum queue."""

    async def taken(work: Any) -> float:
        await fill(here, MESSAGES)
        async with apart(work, here.amqp_url, MESSAGES) as hear:
            rate: float = await hear()
        return rate

    async def quorum() -> float:
        async with apart(consume_quorum, here.amqp_url, MESSAGES) as hear:
            rate: float = await hear()
        return rate

    await beside(
        "consume and ack: callback, uvloop, classic queue",
        "parts/s",
        partial(taken, consume),
        ("iterator", partial(taken, iterate)),
        ("asyncio's own loop", partial(taken, consume_without_uvloop)),
        ("quorum queue", quorum),
    )


async def iterate(say: Say, url: str, parts: int) -> None:
    """Consume by the queue's iterator, acks in thousands; says how many a second."""
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        await channel.set_qos(prefetch_count=8 * BATCH)
        queue = await channel.get_queue(contract.QUEUE)
        seen, began = 0, time.perf_counter()
        async with queue.iterator() as messages:
            async for message in messages:
                seen += 1
                if seen % BATCH == 0 or seen == parts:
                    await message.ack(multiple=True)
                if seen == parts:
                    break
            say(parts / (time.perf_counter() - began))


async def consume_without_uvloop(say: Say, url: str, parts: int) -> None:
    """Consume by callback on asyncio's own loop."""
    await asyncio.to_thread(asyncio.run, consume(say, url, parts))


async def consume_quorum(say: Say, url: str, parts: int) -> None:
    """Fill a quorum queue and consume it by callback."""
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel(publisher_confirms=False)
        arguments: dict[str, Any] = {"x-queue-type": "quorum"}
        queue = await channel.declare_queue(QUORUM, durable=True, arguments=arguments)
        await queue.purge()
        for at in range(parts):
            await channel.default_exchange.publish(part(1, at, PART), QUORUM)
        while True:
            found = await channel.declare_queue(QUORUM, passive=True)
            if found.declaration_result.message_count == parts:
                break
            await asyncio.sleep(0.05)
    await consume(say, url, parts, QUORUM)


async def decoding(_: Bench) -> None:
    """Msgspec into a type against json into a dict."""
    body = part(1, 1, PART).body

    class Wire(msgspec.Struct):
        id: int | str
        number: int | str
        log: str
        uuid: str = ""
        final: bool = False

    async def rate(decode: Callable[[bytes], object]) -> float:
        began = time.perf_counter()
        for _ in range(MESSAGES):
            decode(body)
        return MESSAGES / (time.perf_counter() - began)

    decoder = msgspec.json.Decoder(Wire)
    ours, other = partial(rate, decoder.decode), partial(rate, json.loads)
    await beside("decode a part: msgspec", "parts/s", ours, ("json", other))


async def rows(here: Bench) -> None:
    """COPY against INSERT of arrays, three connections."""
    now = datetime.now(UTC)
    made = [
        (1 + n % 1_000, 1, now + timedelta(microseconds=n), n // 1_000, False, PART)
        for n in range(ROWS)
    ]

    async def copy(connection: Any, batch: list[tuple[Any, ...]]) -> None:
        await connection.copy_records_to_table("log_parts", records=batch, columns=COLUMNS)

    async def insert(connection: Any, batch: list[tuple[Any, ...]]) -> None:
        await connection.execute(INSERT, *(list(column) for column in zip(*batch, strict=True)))

    async def rate(write: Callable[[Any, list[tuple[Any, ...]]], Awaitable[None]]) -> float:
        places = asyncio.Semaphore(CONNECTIONS)

        async def one(at: int) -> None:
            async with places, here.pool.acquire() as connection:
                await write(connection, made[at : at + BATCH])

        began = time.perf_counter()
        await asyncio.gather(*map(one, range(0, ROWS, BATCH)))
        seconds = time.perf_counter() - began
        await here.pool.execute("TRUNCATE log_parts")
        return ROWS / seconds

    ours, other = partial(rate, copy), partial(rate, insert)
    await beside("write rows: COPY", "rows/s", ours, ("INSERT of unnest", other))


async def flushes(here: Bench) -> None:
    """How many flushes in flight, a connection each, and how many parts in each."""

    async def rate(connections: int, size: int) -> float:
        pool = await open_pool(here.settings.database, connections)
        opened = (pool.execute("SELECT pg_sleep(0.1)") for _ in range(connections))
        await asyncio.gather(*opened)
        places = asyncio.Semaphore(connections)
        now, jobs = datetime.now(UTC), here.jobs(1_000)
        parts = [
            Part(jobs[n % 1_000], "run", n // 1_000, PART, False, now, now)  # noqa: FBT003
            for n in range(ROWS)
        ]

        async def flush(at: int) -> None:
            async with places, pool.acquire() as connection:
                await store_batch(connection, parts[at : at + size])

        began = time.perf_counter()
        await asyncio.gather(*map(flush, range(0, ROWS, size)))
        seconds = time.perf_counter() - began
        await pool.close()
        return ROWS / seconds

    others = [(1, 2_000), (2, 2_000), (6, 2_000), (3, 250), (3, 1_000), (3, 4_000)]
    await beside(
        "flush: 3 in flight, 2,000 parts each",
        "parts/s",
        partial(rate, 3, 2_000),
        *((f"{many} in flight, {size:,} each", partial(rate, many, size)) for many, size in others),
    )


async def storage(here: Bench) -> None:
    """Content uncompressed, so that a slice is read alone, against lz4: to write, read and keep."""
    lines = (LINE % (n, n * 7 % 900, n % 3, n % 60, n * 13 % 1000) for n in range(2_000))
    content = b"".join(lines)[:LOG_BYTES]
    for name, kind in (("plain", "STORAGE EXTERNAL"), ("lz4", "COMPRESSION lz4")):
        await here.pool.execute(f"CREATE TABLE tried_{name} (content bytea)")
        await here.pool.execute(f"ALTER TABLE tried_{name} ALTER content SET {kind}")

    async def written(name: str) -> float:
        await here.pool.execute(f"TRUNCATE tried_{name}")
        began = time.perf_counter()
        for _ in range(LOGS):
            await here.pool.execute(f"INSERT INTO tried_{name} VALUES ($1)", content)  # noqa: S608
        return LOGS / (time.perf_counter() - began)

    async def read(name: str, what: str) -> float:
        began = time.perf_counter()
        await here.pool.fetch(f"SELECT {what} FROM tried_{name}")  # noqa: S608 - ours
        return LOGS / (time.perf_counter() - began)

    async def kept(name: str) -> float:
        size: int = await here.pool.fetchval("SELECT pg_total_relation_size($1)", f"tried_{name}")
        return size / LOGS / 1000

    for what, unit, way in (
        ("write 100 KiB", "logs/s", written),
        ("read 100 KiB", "logs/s", partial(read, what="content")),
        ("read 1 KiB at its end", "logs/s", partial(read, what="substring(content, 101000, 1024)")),
        ("keep 100 KiB", "KB", kept),
    ):
        await beside(f"{what}: EXTERNAL", unit, partial(way, "plain"), ("lz4", partial(way, "lz4")))
    await here.pool.execute("DROP TABLE tried_plain, tried_lz4")


async def worker(here: Bench) -> None:
    """Activities handed over with the workflow task, workflows cached, more pollers."""
    run = 0

    async def rate(**options: Any) -> float:
        nonlocal run
        run += 1
        return WORKFLOWS / await run_bare(here.client, WORKFLOWS, f"tried-{run}", **options)

    await beside(
        "four empty activities: eager, cached, 5 pollers, sandbox",
        "workflows/s",
        rate,
        ("not eager", partial(rate, disable_eager_activity_execution=True)),
        ("no cache", partial(rate, max_cached_workflows=0)),
        ("no sandbox", partial(rate, workflow_runner=UnsandboxedWorkflowRunner())),
        (
            "20 pollers of each kind",
            partial(
                rate,
                max_concurrent_workflow_task_polls=20,
                max_concurrent_activity_task_polls=20,
            ),
        ),
    )


async def signals(here: Bench) -> None:
    """What a log costs that gets a part a second for a minute, by the interval of its signals."""
    await here.stack.up(["worker"])
    jobs = here.jobs(SIGNALLED)
    workflows = make_workflows(here.client, here.settings)
    before = cpu_seconds(here.stack)
    for at in range(SIGNALS):
        job_id = jobs[at % SIGNALLED]
        await workflows.parts_stored(job_id, PartsStored(1, 1024, begun=at < SIGNALLED))
    after = cpu_seconds(here.stack)
    used = sum(after[name] - before[name] for name in ("temporal", "worker")) / SIGNALS
    for seconds in (here.settings.drain.signal_seconds, 1, 5, 60):
        count = 1 + 60 / seconds
        print(
            f"| a log of a minute: a signal each {seconds:g} s | {count:g} signals | "
            f"{1000 * used * count:.0f} ms of CPU in Temporal and the worker | |"
        )


TRIED = {
    "consumer": consumer,
    "decoding": decoding,
    "rows": rows,
    "flushes": flushes,
    "storage": storage,
    "worker": worker,
    "signals": signals,
}


async def main(names: list[str]) -> None:
    """Try each in turn on one set of servers."""
    async with bench(quick=True) as here:
        print("\n".join([*await here.about(), "", "| | way | | of ours |", "| --- " * 4 + "|"]))
        for name in names:
            await TRIED[name](here)
            await here.clean()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1:] or [*TRIED]))
