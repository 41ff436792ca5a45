"""Cost of parts and logs: CPU, memory, rows, WAL, Temporal actions and S3 requests.

`python -m bench.sizing [LOGS [RATE]]` publishes LOGS logs of 100 KiB (default 300) concurrently,
RATE parts of 1 KiB per second (default 1,000), without a worker; then it ends all of them and a
worker runs their lifecycles, with all of production's timers, but short.
"""

import asyncio
import sys
from collections import Counter
from contextlib import AsyncExitStack

import asyncpg
import msgspec
import psutil
import uvloop

from bench.counts import actions, counted_worker, each, until_closed
from bench.publish import finish, preload
from bench.servers import cpu_seconds, servers
from bench.subprocess_worker import subprocess_worker
from db.connect import open_pool
from logflume_cli.devstack.stack import LocalStack
from workflows.client.connection import connect_temporal

LOGS, RATE = 300, 1_000
PARTS = 100
TEXT = "0123456789abcde\n" * 64  # 1 KiB
TICK_SECONDS = 0.05
TIMES = {"settle_seconds": 1, "gap_seconds": 1, "purge_seconds": 1}
TABLES = {
    "log_parts": "SELECT count(*) FROM log_parts",
    "logs": "SELECT count(*) FROM logs",
    "log_attempts": "SELECT count(*) FROM log_attempts",
}


async def main(logs: int, rate: int) -> None:
    """Measure parts and logs and print their costs."""
    async with servers(lifecycle=TIMES) as (stack, settings), AsyncExitStack() as held:
        pool = await open_pool(settings.database, 2)
        held.push_async_callback(pool.close)
        client = await connect_temporal(settings.temporal)
        url = settings.amqp.url.get_secret_value()
        await stack.up(["drain"])
        begun = await Costs.now(stack, pool)
        jobs = range(1, logs + 1)
        async with subprocess_worker(preload, url, jobs, logs * PARTS, rate) as published:
            seconds = await published()
        while await rows(pool, "log_parts") < logs * PARTS:
            await asyncio.sleep(0.05)
        received = await Costs.now(stack, pool)
        received.report(begun, logs * PARTS / 1000, "1,000 parts")
        print(f"published at {logs * PARTS / seconds:,.0f} parts/s")
        notes = stack.home.data_dir / "requests"
        async with counted_worker(stack, notes) as worker:
            received = await Costs.now(stack, pool, worker)
            async with subprocess_worker(finish, url, jobs, PARTS) as published:
                await published()
            await until_closed(client, jobs)
            (await Costs.now(stack, pool, worker)).report(received, logs / 100, "100 logs")
        requests, billed = Counter(notes.read_text().split()), await actions(client, jobs)
        for name, counts in (("S3 requests", requests), ("Temporal actions", billed)):
            print(f"{name} per log: {counts.total() / logs:.2f} ({each(counts, logs)})")


class Costs(msgspec.Struct):
    """Usage so far; `memory` is the current PSS in bytes."""

    cpu: dict[str, float]
    memory: dict[str, int]
    rows: dict[str, int]
    wal: int

    @classmethod
    async def now(
        cls, stack: LocalStack, pool: asyncpg.Pool, worker: psutil.Process | None = None
    ) -> "Costs":
        """Read the usage of the stack's processes and the worker."""
        cpu = cpu_seconds(stack)
        pids = {item.name: item.pid for item in stack.status() if item.pid}
        if worker:
            times = worker.cpu_times()
            cpu["worker"], pids["worker"] = times.user + times.system, worker.pid
        counts = {table: await rows(pool, table) for table in TABLES}
        wal = await pool.fetchval("SELECT pg_current_wal_lsn() - '0/0'")
        return cls(cpu, {name: held(pid) for name, pid in pids.items()}, counts, int(wal))

    def report(self, before: "Costs", units: float, unit: str) -> None:
        """Print the usage since `before` per unit."""
        spent = {name: seconds - before.cpu.get(name, 0.0) for name, seconds in self.cpu.items()}
        for name, seconds in {**spent, "all": sum(spent.values())}.items():
            memory = f"{self.memory[name] / 2**20:6.0f} MiB" if name in self.memory else ""
            print(f"{name:<14}{seconds / units:8.3f} CPU s per {unit}  {memory}")
        for table, count in self.rows.items():
            print(f"{table:<14}{(count - before.rows[table]) / units:8,.0f} rows per {unit}")
        print(f"{'WAL':<14}{(self.wal - before.wal) / units / 1e6:8.2f} MB per {unit}")


def held(pid: int) -> int:
    """Memory of a process and its children in bytes; shared pages count once."""
    root = psutil.Process(pid)
    return sum(one.memory_full_info().pss for one in (root, *root.children(recursive=True)))


async def rows(pool: asyncpg.Pool, table: str) -> int:
    """The number of rows of a table."""
    count: int = await pool.fetchval(TABLES[table])
    return count


if __name__ == "__main__":
    args = [int(argument) for argument in sys.argv[1:]]
    uvloop.run(main(*args, *(LOGS, RATE)[len(args) :]))
