"""Real servers, started once per process; each test gets its own database, vhost and bucket."""

import asyncio
import itertools
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import structlog
from aio_pika.abc import AbstractChannel
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from pydantic import SecretStr

from db import partitions
from db.connect import open_pool
from logflume.settings import Settings, load_settings, stack_file
from logflume_cli.devstack.home import Home
from logflume_cli.devstack.postgres import OPTIONS
from logflume_cli.devstack.stack import LocalStack
from tests.support.broker import manage, open_channel
from tests.support.databases import new_database
from tests.support.s3 import s3
from tests.support.stacks import cluster_with_schema, copy_cluster, discard

# Modules and folders by duration: the longest start first, or all workers wait for the last one.
LONGEST = (
    "end_to_end/test_whole.py",
    "end_to_end/test_operator.py",
    "browser/test_hostile.py",
    "workflows/test_sweep.py",
    "end_to_end",
    "faults",
    "workflows",
    "browser",
    "cli",
    "services/test_openapi.py",
    "services/test_killed_workers.py",
    "services",
)
SERVERS = ("rabbitmq", "postgres", "temporal", "s3")
# No assertions on timing: a busy machine must not fail a property.
hypothesis_settings.register_profile(
    "logflume", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
hypothesis_settings.load_profile("logflume")
# No test cuts the power: what a killed process wrote is safe in the kernel.
OPTIONS["fsync"] = "off"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--record-histories`, which stores the history of each workflow test for replay."""
    parser.addoption("--record-histories", action="store_true")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with the longest modules."""
    ranks = {name: rank for rank, name in enumerate(LONGEST)}

    def rank(item: pytest.Item) -> int:
        folder = item.path.parent.name
        return ranks.get(f"{folder}/{item.path.name}", ranks.get(folder, len(ranks)))

    items.sort(key=rank)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Name each failure at once: a run that is stopped prints no summary."""
    if report.failed and "PYTEST_XDIST_WORKER" not in os.environ:
        print(f" {report.nodeid} failed in {report.when}")  # noqa: T201


@pytest.fixture(scope="session", autouse=True)
def _interrupts_are_not_ignored() -> None:
    """Commands can be interrupted, even if a shell runs the tests in the background."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _no_settings_from_outside() -> Iterator[None]:
    """Hide the developer's own settings from the tests."""
    names = [name for name in os.environ if name.startswith("LOGFLUME_")]
    hidden = {name: os.environ.pop(name) for name in names}
    yield
    os.environ.update(hidden)


@pytest.fixture(scope="session", autouse=True)
def _log_lines_on_standard_error() -> None:
    """Log to standard error as in production, apart from what commands print."""
    structlog.configure(logger_factory=lambda *_: structlog.PrintLogger(sys.stderr))


@pytest.fixture(scope="session")
def new_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    """Makes folders for new stacks; initdb and sqitch, which take seconds, ran only once."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    template = cluster_with_schema(shared)
    return lambda: copy_cluster(template, tmp_path_factory.mktemp("stack"))


@pytest.fixture(scope="session")
def servers(new_folder: Callable[[], Path]) -> Iterator[Home]:
    """RabbitMQ, Postgres with the schema, Temporal and S3."""
    stack = LocalStack(new_folder())
    asyncio.run(stack.up(SERVERS))
    yield stack.home
    asyncio.run(discard(stack))


@pytest.fixture(scope="session")
def pusher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    """A separate stack with a Pusher server; its webhooks go to the stack's web port."""
    stack = LocalStack(tmp_path_factory.mktemp("pusher"))
    asyncio.run(stack.up(["pusher"]))
    yield stack
    asyncio.run(stack.down())


@pytest.fixture(scope="session")
def numbers() -> Iterator[int]:
    """Unique numbers for job ids and names."""
    return itertools.count(1000)


@pytest.fixture
def name(numbers: Iterator[int]) -> str:
    """A unique name."""
    return f"t{next(numbers)}"


@pytest.fixture
def job_id(numbers: Iterator[int]) -> int:
    """A unique job id."""
    return next(numbers)


@pytest.fixture
async def database_url(servers: Home, name: str) -> AsyncIterator[str]:
    """The URL of a new database with the schema."""
    async with new_database(servers, name) as url:
        yield url


@pytest.fixture
def amqp_url(servers: Home, name: str) -> str:
    """The URL of a new vhost."""
    manage(servers, "PUT", f"vhosts/{name}", {})
    permissions = {"configure": ".*", "write": ".*", "read": ".*"}
    manage(servers, "PUT", f"permissions/{name}/logflume", permissions)
    return servers.amqp_url + name


@pytest.fixture
def at_any_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    """Create and fill partitions as at noon, without the grace minutes after midnight."""
    monkeypatch.setattr(partitions, "COMMITTED_AFTER", timedelta())


@pytest.fixture
def settings(
    servers: Home, database_url: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Settings]:
    """Settings with a new database, bucket and task queue, and short times."""
    monkeypatch.setenv("LOGFLUME_STACK__DATA_DIR", str(servers.data_dir))
    given: dict[str, Any] = json.loads(stack_file(servers.data_dir).read_text())
    given["database"] = {"url": database_url, "connections": 8}
    given["temporal"]["task_queue"] = name
    given["s3"] |= {"bucket": f"logflume-{name}", "longest_request_seconds": 0.5}
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
    # A bucket with objects occupies one of the store's volumes (free disk space / 128 MB).
    s3(settings).delete_bucket(Bucket=settings.s3.bucket)


@pytest.fixture
def amqp_settings(settings: Settings, amqp_url: str) -> Settings:
    """The same settings with a new vhost."""
    return settings.model_copy(
        update={"amqp": settings.amqp.model_copy(update={"url": SecretStr(amqp_url)})}
    )


@pytest.fixture
async def channel(amqp_settings: Settings) -> AsyncIterator[AbstractChannel]:
    """A channel in that vhost; exchange and queue of the parts are declared."""
    async with open_channel(amqp_settings) as channel:
        yield channel


@pytest.fixture
async def pool(settings: Settings) -> AsyncIterator[asyncpg.Pool]:
    """A connection pool of the test's database."""
    pool = await open_pool(settings.database)
    yield pool
    await pool.close()
