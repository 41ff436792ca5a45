"""How fast a finished log is read over HTTP, beside files of the same bytes on the same server.

`python -m bench.read [MEGABYTES [SECONDS]]`: the web's own process answers `GET /logs/{id}` of a
log of 100 KiB over ten connections, and `/raw` of one of MEGABYTES (default 50) over one, wherever
the log is; each is measured for SECONDS (default 10). The clients are a process of their own.
"""

import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import asyncpg
import httpx
import uvloop

from bench import logs
from bench.apart import apart
from bench.client import Load, load
from bench.figures import told
from bench.files import serve_files
from bench.servers import Server, cpu_seconds, servers, web_server
from db.connect import open_pool
from settings import Settings
from stack.stack import LocalStack

MEGABYTES, SECONDS = 50, 10.0
CONNECTIONS = 10
PARTS = 100
LARGE_PART = b"0123456789abcdef0123456789abcd\n" * 53  # about what a runner sends
SMALL = {"in the row": 1, "101 parts": 2}
LARGE = {"in the row": 11, "parts": 12, "archive": 13}


async def main(megabytes: int, seconds: float) -> None:
    """Measure each way beside the file's."""
    async with servers() as (stack, settings), AsyncExitStack() as held:
        pool = await open_pool(settings.database)
        held.push_async_callback(pool.close)
        await make_logs(pool, settings, megabytes)
        await stack.up(["web"])
        web = web_server(settings)
        folder = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="logflume-bench-")))
        keep(web, f"/logs/{SMALL['in the row']}", folder / "small")
        keep(web, f"/logs/{LARGE['in the row']}/raw", folder / "large")
        plain = await held.enter_async_context(files(folder))

        base = await measure(stack, plain, "/small", CONNECTIONS, seconds)
        print(f"{'file of 100 KiB':<26}{base.load.rate:6.0f} requests/s        {base.waits}")
        for name, job_id in SMALL.items():
            found = await measure(stack, web, f"/logs/{job_id}", CONNECTIONS, seconds)
            ratio = found.load.rate / base.load.rate
            figures = f"{found.load.rate:6.0f} requests/s, {ratio:4.0%}"
            print(f"{f'GET /logs/ID, {name}':<26}{figures}  {found.waits}; {found.cpu}")

        base = await measure(stack, plain, "/large", 1, seconds)
        print(f"{f'file of {megabytes} MB':<26}{base.load.megabytes:6.0f} MB/s")
        for name, job_id in LARGE.items():
            found = await measure(stack, web, f"/logs/{job_id}/raw", 1, seconds)
            ratio = found.load.megabytes / base.load.megabytes
            print(
                f"{f'/raw, {name}':<26}{found.load.megabytes:6.0f} MB/s, {ratio:4.0%}  {found.cpu}"
            )


class Measured(NamedTuple):
    """A load, and the CPU seconds that web and Postgres spent on it."""

    load: Load
    web: float
    postgres: float

    @property
    def waits(self) -> str:
        """How long a request took."""
        return told(self.load.waits)

    @property
    def cpu(self) -> str:
        """What a request cost, in milliseconds of CPU."""
        web, postgres = (1000 * one / len(self.load.waits) for one in (self.web, self.postgres))
        return f"CPU: web {web:.2f} ms, Postgres {postgres:.2f} ms"


async def make_logs(pool: asyncpg.Pool, settings: Settings, megabytes: int) -> None:
    """Make the same log of each size in every state it can be in."""
    for job_id in SMALL.values():
        await logs.store(pool, job_id, PARTS)
    for job_id in LARGE.values():
        await logs.store(pool, job_id, megabytes * 1_000_000 // len(LARGE_PART), LARGE_PART)
    for job_id in (SMALL["in the row"], LARGE["in the row"]):
        await logs.aggregate(pool, job_id)
    content = await logs.aggregate(pool, LARGE["archive"])
    await logs.archive(settings.s3, pool, LARGE["archive"], content)
    await pool.execute("ANALYZE")


def keep(web: Server, path: str, file: Path) -> None:
    """Keep an answer's body for the other server to serve."""
    headers = {"Authorization": f"token {web.token}"}
    url = f"http://{web.host}:{web.port}{path}"
    answer = httpx.get(url, headers=headers, timeout=60, trust_env=False)
    file.write_bytes(answer.raise_for_status().content)


@asynccontextmanager
async def files(folder: Path) -> AsyncIterator[Server]:
    """Serve a folder's files in a process of its own."""
    async with apart(serve_files, folder) as hear:
        yield Server("127.0.0.1", await hear(), "")


async def measure(
    stack: LocalStack, server: Server, path: str, connections: int, seconds: float
) -> Measured:
    """Load one path for a time, from a process of its own."""
    async with apart(load, server, path, connections, seconds) as hear:
        await hear()
        before = cpu_seconds(stack)
        found: Load = await hear()
        after = cpu_seconds(stack)
    return Measured(found, *(after[name] - before[name] for name in ("web", "postgres")))


if __name__ == "__main__":
    given = sys.argv[1:]
    uvloop.run(
        main(
            int(given[0]) if given else MEGABYTES,
            float(given[1]) if len(given) > 1 else SECONDS,
        )
    )
