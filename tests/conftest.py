"""Real servers, started once; each test gets a database, a vhost and a bucket of its own."""

import asyncio
import itertools
import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aio_pika
import asyncpg
import boto3
import httpx
import pytest
import structlog
import uvicorn
from aio_pika.abc import AbstractChannel
from pydantic import SecretStr

from db import logs, partitions, reading
from db.connect import open_pool
from drain.drain import Drain
from drain.live.forwarder import Forwarder
from drain.shards import Shards
from drain.signals import Signaller
from logflume import amqp
from logflume.domain import Part
from logflume.pusher import make_sender
from logflume.settings import Settings, load_settings, stack_file
from logflume_cli.devstack.home import Home, open_home
from logflume_cli.devstack.stack import LocalStack
from logflume_cli.web import web_services
from web.app import make_app
from workflows.client import connection as temporal
from workflows.client.logs import LogWorkflows
from workflows.types import LifecycleOptions

# The folders whose modules take longest, a module at a time: who begins last is waited for by all.
LONGEST = ("end_to_end", "faults", "workflows", "browser", "services")
SERVERS = ("rabbitmq", "postgres", "temporal", "s3")


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--record-histories` keeps the history of each lifecycle test for the replay tests."""
    parser.addoption("--record-histories", action="store_true")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest."""
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.parent.name, len(places)))


@pytest.fixture(scope="session", autouse=True)
def _no_settings_from_outside() -> Iterator[None]:
    """A stack or settings of the developer's own must not leak into the tests."""
    names = [name for name in os.environ if name.startswith("LOGFLUME_")]
    kept = {name: os.environ.pop(name) for name in names}
    yield
    os.environ.update(kept)


@pytest.fixture(scope="session", autouse=True)
def _log_lines_on_standard_error() -> None:
    """As in production: what a command prints is told apart from them."""
    structlog.configure(logger_factory=lambda *_: structlog.PrintLogger(sys.stderr))


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """RabbitMQ, Postgres with the schema, Temporal and S3."""
    stack = LocalStack(tmp_path_factory.mktemp("servers"))
    asyncio.run(stack.up(SERVERS))
    yield stack.home
    asyncio.run(stack.down())


@pytest.fixture(scope="session")
def pusher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    """A stack of its own that holds a Pusher server; its webhooks go to the port of its web."""
    stack = LocalStack(tmp_path_factory.mktemp("pusher"))
    asyncio.run(stack.up(["pusher"]))
    yield stack
    asyncio.run(stack.down())


@pytest.fixture(scope="session")
def numbers() -> Iterator[int]:
    """Numbers that no two tests share: job ids, names."""
    return itertools.count(1000)


@pytest.fixture
def name(numbers: Iterator[int]) -> str:
    """A name that no other test uses."""
    return f"t{next(numbers)}"


@pytest.fixture
def job_id(numbers: Iterator[int]) -> int:
    """A job id that no other test uses."""
    return next(numbers)


@pytest.fixture
async def database_url(servers: Home, name: str) -> AsyncIterator[str]:
    """A database with the schema."""
    admin = await asyncpg.connect(servers.database_url("postgres"))
    try:
        # Files are copied for a third of the CPU that writing all of it to the log takes.
        await admin.execute(f"CREATE DATABASE {name} TEMPLATE logflume STRATEGY FILE_COPY")
        yield servers.database_url(name)
        await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    finally:
        await admin.close()


@pytest.fixture
def amqp_url(servers: Home, name: str) -> str:
    """A vhost of the test's own."""
    manage(servers, "PUT", f"vhosts/{name}", {})
    permissions = {"configure": ".*", "write": ".*", "read": ".*"}
    manage(servers, "PUT", f"permissions/{name}/logflume", permissions)
    return servers.amqp_url + name


def manage(servers: Home, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
    """Call RabbitMQ's management API."""
    user, _, place = servers.management_url.removeprefix("http://").rpartition("@")
    url, login = f"http://{place}/api/{path}", tuple(user.split(":"))
    # Reading certificates, which nobody shows here, takes longer than the call.
    answer = httpx.request(method, url, auth=login, json=body, timeout=30, verify=False)
    answer.raise_for_status()
    return answer.json() if answer.content else None


@pytest.fixture
def at_any_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    """Partitions are made and filled as at noon: no minutes after midnight belong to yesterday."""
    monkeypatch.setattr(partitions, "COMMITTED_AFTER", timedelta())


async def close_connections(servers: Home, vhost: str, client: str) -> None:
    """Have the broker close the connections of one of our clients, as an operator may."""

    def close() -> bool:
        found = manage(servers, "GET", f"vhosts/{vhost}/connections")
        mine = [
            one["name"]
            for one in found
            if one.get("client_properties", {}).get("connection_name") == client
        ]
        for one in mine:
            manage(servers, "DELETE", "connections/" + one.replace(" ", "%20").replace(">", "%3E"))
        return bool(mine)

    # The management's own list of connections lags behind by some seconds.
    await until(lambda: asyncio.to_thread(close))


@pytest.fixture
def settings(
    servers: Home, database_url: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Settings]:
    """Settings of the test's own database, bucket and task queue; short times."""
    monkeypatch.setenv("LOGFLUME_STACK__DATA_DIR", str(servers.data_dir))
    given: dict[str, Any] = json.loads(stack_file(servers.data_dir).read_text())
    given["database"] = {"url": database_url, "connections": 8}
    given["temporal"]["task_queue"] = name
    given["s3"]["bucket"] = f"logflume-{name}"
    given["lifecycle"] = {
        "settle_seconds": 0.2,
        "gap_seconds": 0.3,
        "purge_seconds": 0.5,
        "archive_backoff_seconds": 0.2,
        "archive_tries": 3,
    }
    settings = load_settings(**given)
    s3(settings).create_bucket(Bucket=settings.s3.bucket)
    yield settings
    # Each bucket with an object holds one of the store's volumes: free disk space / 128 MB of them.
    s3(settings).delete_bucket(Bucket=settings.s3.bucket)


@pytest.fixture
def amqp_settings(settings: Settings, amqp_url: str) -> Settings:
    """The same, with a vhost of the test's own."""
    return settings.model_copy(
        update={"amqp": settings.amqp.model_copy(update={"url": SecretStr(amqp_url)})}
    )


@pytest.fixture
async def channel(amqp_settings: Settings) -> AsyncIterator[AbstractChannel]:
    """A channel in that vhost, where exchange and queue of the parts are declared."""
    url = amqp_settings.amqp.url.get_secret_value()
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        await amqp.declare(channel)
        yield channel


def s3(settings: Settings) -> Any:
    """A plain boto3 client of the test's store, beside ours."""
    store = settings.s3
    assert store.secret_key is not None
    return boto3.client(
        "s3",
        endpoint_url=store.endpoint,
        region_name=store.region,
        aws_access_key_id=store.access_key,
        aws_secret_access_key=store.secret_key.get_secret_value(),
    )


@pytest.fixture
async def pool(settings: Settings) -> AsyncIterator[asyncpg.Pool]:
    """A pool on the test's database."""
    pool = await open_pool(settings.database)
    yield pool
    await pool.close()


async def until(met: Callable[[], Awaitable[bool]]) -> None:
    """Postgres and counters tell nobody of a change: look until it is so."""
    async with asyncio.timeout(60):
        while not await met():
            await asyncio.sleep(0.02)


def as_process(settings: Settings, process: str) -> Settings:
    """The same, with the user that this process has in the database."""
    home = open_home(settings.stack.data_dir, {})
    owner, own = (home.database_url("", one).split("@")[0] for one in (None, process))
    changed = {
        name: SecretStr(url.get_secret_value().replace(owner, own))
        for name in ("url", "direct_url")
        if (url := getattr(settings.database, name))
    }
    return settings.model_copy(update={"database": settings.database.model_copy(update=changed)})


@asynccontextmanager
async def draining(settings: Settings, *, sharded: bool = False) -> AsyncIterator[Drain]:
    """A drain in this process; stopped as SIGTERM stops it."""
    async with AsyncExitStack() as stack:
        shards = Shards(settings.amqp) if sharded else None
        if shards:
            stack.push_async_callback(shards.close)
        database = as_process(settings, "drain").database
        pool = await open_pool(database, settings.drain.flushes)
        stack.push_async_callback(pool.close)
        client = await temporal.connect(settings.temporal, lazy=True)
        options = LifecycleOptions(**settings.lifecycle.model_dump())
        workflows = LogWorkflows(client, settings.temporal.task_queue, options)
        signaller = Signaller(workflows, interval=0.2, in_flight=4)
        sender = make_sender(settings.pusher)
        live = Forwarder(sender, settings.pusher) if sender else None
        drain = Drain(settings.amqp, settings.drain, pool, signaller, live, shards)
        running = asyncio.create_task(drain.run())
        try:
            yield drain
        finally:
            drain.stop()
            await running


TOKEN = "the-token"


@asynccontextmanager
async def serving(
    settings: Settings, pool: asyncpg.Pool, *, port: int = 0, **web: Any
) -> AsyncIterator[httpx.AsyncClient]:
    """The web on a port of its own, and a client of it that sends the token."""
    changed = {"auth_token": SecretStr(TOKEN), **web}
    settings = settings.model_copy(update={"web": settings.web.model_copy(update=changed)})
    async with AsyncExitStack() as stack:
        services = await web_services(settings, pool, stack)
        config = uvicorn.Config(
            make_app(settings, services), port=port, http="httptools", log_config=None
        )
        server = uvicorn.Server(config)
        task = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
            if task.done():
                task.result()
        address = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        headers = {"Authorization": f"token {TOKEN}"}
        try:
            async with httpx.AsyncClient(
                base_url=address, headers=headers, timeout=30, verify=False
            ) as client:
                yield client
        finally:
            services.hub.close()
            server.should_exit = True
            await task


_clock = itertools.count()
BEGIN = datetime.now(UTC).replace(microsecond=0)


def part(job_id: int, number: int, content: bytes = b"", **fields: Any) -> Part:
    """A part, received after every one made before it."""
    received_at = BEGIN + timedelta(microseconds=next(_clock))
    defaults: dict[str, Any] = {"attempt": "a", "final": False, "published_at": received_at}
    return Part(
        job_id=job_id,
        number=number,
        content=content,
        received_at=received_at,
        **(defaults | fields),
    )


async def write_whole(connection: Any, job_id: int, content: bytes) -> None:
    """Write a log's content whole, as `PUT /logs/{id}` does."""
    await logs.replace_contents(connection, [logs.WholeContent(job_id, content)])


async def content(connection: Any, job_id: int) -> bytes:
    """The bytes of a log by the content rule, read from its parts."""
    found = await reading.snapshot(connection, await reading.find(connection, job_id))
    assert found.parts is not None
    if not found.parts:
        return b""
    parts = await reading.read_parts(connection, found.log.id, found.parts, range(len(found.parts)))
    return b"".join(part.content for part in parts)


def shared_logs() -> list[Path]:
    """Real CI logs, where the folder with them lies beside the project."""
    return sorted((Path(__file__).parents[2] / "shared" / "data").glob("*.log.gz"))
