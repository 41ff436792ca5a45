"""Reading finished logs over HTTP, against static files with the same bytes.

The web process serves `GET /logs/{id}` of 100 KiB over ten connections and `/raw` of 50 MB over
one, for each place where a log can be stored. The clients run in a subprocess.
"""

import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import httpx

from activities.logs import ArchiveActivities
from bench import logs
from bench.archive import one, order
from bench.client import Load, load
from bench.figures import Figure, percentile
from bench.files import serve_files
from bench.servers import Bench, Server, cpu_seconds
from bench.subprocess_worker import subprocess_worker
from db.logs import purge
from logflume.archive.store import Archive

CONNECTIONS = 10
PARTS = 100
LARGE_BYTES = 50_000_000
LARGE_PART = b"0123456789abcdef0123456789abcd\n" * 53  # about a runner's part size


# Targets by where the log is: requests per second; p99 in milliseconds.
SMALL = {"in the row": (2_500, 12.0), "101 parts": (1_200, None)}
LARGE = ("in the row", "parts", "archive")


async def measure(bench: Bench) -> list[Figure]:
    """Measure each place against the file."""
    seconds = 1.0 if bench.quick else 7.0
    small, large = (
        dict(zip(names, bench.jobs(len(names)), strict=True)) for names in (SMALL, LARGE)
    )
    await make_logs(bench, small, large)
    await bench.stack.up(["web"])
    async with AsyncExitStack() as held:
        folder = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="logflume-bench-")))
        save(bench.web, f"/logs/{small['in the row']}", folder / "small")
        save(bench.web, f"/logs/{large['in the row']}/raw", folder / "large")
        plain = await held.enter_async_context(files(folder))

        base = await loaded(bench, plain, "/small", CONNECTIONS, seconds)
        figures = [Figure("a file of 100 KiB", base.load.rate, "requests/s")]
        for name, (rate, slowest) in SMALL.items():
            found = await loaded(bench, bench.web, f"/logs/{small[name]}", CONNECTIONS, seconds)
            what, p99 = f"`GET /logs/{{id}}` of 100 KiB, {name}", percentile(found.load.waits, 99)
            figures += [
                Figure(what, found.load.rate, "requests/s", rate, note=found.cpu),
                Figure(f"{what}, p99", 1000 * p99, "ms", slowest, less=True),
            ]

        base = await loaded(bench, plain, "/large", 1, seconds)
        figures.append(Figure("a file of 50 MB", base.load.megabytes, "MB/s"))
        for name, job_id in large.items():
            found = await loaded(bench, bench.web, f"/logs/{job_id}/raw", 1, seconds)
            ratio = 100 * found.load.megabytes / base.load.megabytes
            note = f"{found.load.megabytes:.0f} MB/s; {found.cpu}"
            figures.append(
                Figure(f"`/raw` of 50 MB, {name}, of the file", ratio, "%", 60, note=note)
            )
    return figures


class Measured(NamedTuple):
    """A load and the CPU seconds that web and Postgres spent on it."""

    load: Load
    web: float
    postgres: float

    @property
    def cpu(self) -> str:
        """CPU milliseconds per request."""
        web, postgres = (1000 * one / len(self.load.waits) for one in (self.web, self.postgres))
        return f"CPU: web {web:.2f} ms, Postgres {postgres:.2f} ms"


async def make_logs(bench: Bench, small: dict[str, int], large: dict[str, int]) -> None:
    """Create logs of both sizes in every place."""
    for job_id in small.values():
        await logs.store(bench.pool, job_id, PARTS)
    parts = LARGE_BYTES // len(LARGE_PART)
    for name in ("in the row", "parts"):
        await logs.store_large(bench.pool, large[name], parts, LARGE_PART)
    for job_id in (small["in the row"], large["in the row"]):
        await logs.aggregate(bench.pool, job_id)
    given = await order(bench, large["archive"], parts, LARGE_PART)
    await one(ArchiveActivities(bench.pool, Archive(bench.settings.s3, 1)), given)
    assert given.sha256  # noqa: S101 - it was aggregated
    async with bench.pool.acquire() as connection:
        await purge(connection, given.job_id, given.sha256)
    await bench.pool.execute("ANALYZE")


def save(web: Server, path: str, file: Path) -> None:
    """Save a response body for the static file server."""
    headers = {"Authorization": f"token {web.token}"}
    url = f"http://{web.host}:{web.port}{path}"
    answer = httpx.get(url, headers=headers, timeout=60, trust_env=False)
    file.write_bytes(answer.raise_for_status().content)


@asynccontextmanager
async def files(folder: Path) -> AsyncIterator[Server]:
    """Serve a folder's files in a subprocess."""
    async with subprocess_worker(serve_files, folder) as receive:
        yield Server("127.0.0.1", await receive(), "")


async def loaded(
    bench: Bench, server: Server, path: str, connections: int, seconds: float
) -> Measured:
    """Load one path from a subprocess."""
    async with subprocess_worker(load, server, path, connections, seconds) as receive:
        await receive()
        before = cpu_seconds(bench.stack)
        found: Load = await receive()
        after = cpu_seconds(bench.stack)
    return Measured(found, *(after[name] - before[name] for name in ("web", "postgres")))
