"""What many readers of one live log cost: memory, wake-ups and queries.

`python -m bench.streams [READERS [PARTS]]`: opens READERS streams of one log (default 1,000), then
commits PARTS parts of 1 KiB (default 50), two a second, as the drain does. The web and the readers
are processes of their own.
"""

import asyncio
import sys
from contextlib import AsyncExitStack

import asyncpg
import psutil
import uvloop

from bench.apart import apart
from bench.figures import told
from bench.logs import PART, store_part
from bench.readers import Seen, read_streams, stamped
from bench.servers import cpu_seconds, servers, web_server
from db.connect import open_pool
from stack.stack import LocalStack

READERS, PARTS = 1_000, 50
JOB = 1
EVERY_SECONDS = 0.5
# A backend of Postgres 15 that rests tells what it did within ten seconds.
STATISTICS_SECONDS = 11
TRANSACTIONS = "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()"


async def main(readers: int, parts: int) -> None:
    """Measure with no reader, with all of them at rest, and with all of them following."""
    async with servers() as (stack, settings), AsyncExitStack() as held:
        pool = await open_pool(settings.database, 1)
        held.push_async_callback(pool.close)
        connection = await held.enter_async_context(pool.acquire())
        await store_part(connection, JOB, 0, PART)
        await stack.up(["web"])
        async with apart(read_streams, web_server(settings), [JOB]) as hear:
            await hear()  # what the first reader costs is not a reader's cost
        empty = rss(stack)
        async with apart(read_streams, web_server(settings), [JOB] * readers) as hear:
            await hear()
            full = rss(stack)
            count, before = await transactions(connection), cpu_seconds(stack)["web"]
            for number in range(1, parts + 1):
                await store_part(connection, JOB, number, stamped(), final=number == parts)
                await asyncio.sleep(EVERY_SECONDS)
            seen: Seen = await hear()
            spent = cpu_seconds(stack)["web"] - before
            # Ours: a transaction for each part, and the look at the statistics itself.
            count = await transactions(connection) - count - parts - 1
            followed = rss(stack)
    last = [max(waits) for waits in seen.waits.values()]
    print(f"memory of the web: {empty:.0f} MiB, with {readers} readers {full:.0f} MiB")
    print(f"  for each reader         {1024 * (full - empty) / readers:.0f} KiB")
    print(f"  after {parts} parts          {followed:.0f} MiB")
    print(f"part to a reader          {told(seen.of([JOB]))}")
    print(f"part to the last reader   {told(last)}")
    print(f"queries for a part        {count / parts:.1f}")
    print(f"web's CPU for an event    {1e6 * spent / parts / readers:.0f} µs")
    print(f"readers sent away         {seen.sent_away}")


def rss(stack: LocalStack) -> float:
    """Resident memory of the web's process, in MiB."""
    pid = next(item.pid for item in stack.status() if item.name == "web")
    return psutil.Process(pid).memory_info().rss / 1024**2


async def transactions(connection: asyncpg.pool.PoolConnectionProxy) -> int:
    """How many transactions the database has seen: a query of the web is one each."""
    await asyncio.sleep(STATISTICS_SECONDS)
    count: int = await connection.fetchval(TRANSACTIONS)
    return count


if __name__ == "__main__":
    given = [int(text) for text in sys.argv[1:]]
    uvloop.run(main(*given, *(READERS, PARTS)[len(given) :]))
