"""A log's workflow on Temporal's time-skipping server, with real activities and components."""

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest
from temporalio.client import Client
from temporalio.testing import WorkflowEnvironment

from activities.logs import ArchiveActivities, DatabaseActivities
from logflume.archive.store import Archive
from logflume.settings import Settings
from tests.support.driver import OPTIONS, Driver
from tests.support.histories import record
from tests.support.workers import lifecycle_workers
from workflows.client.connection import (
    add_search_attributes,
    connect_temporal,
    ensure_search_attributes,
)
from workflows.lifecycle_types import LifecycleOptions


@pytest.fixture
async def environment() -> AsyncIterator[WorkflowEnvironment]:
    """A time-skipping server of the test's own: its clock is shared by all its workflows."""
    server = Path(sys.executable).parent / "temporal-test-server"
    async with await WorkflowEnvironment.start_time_skipping(
        test_server_existing_path=str(server)
    ) as environment:
        # This server accepts search attributes but cannot list them, as a worker does.
        await add_search_attributes(environment.client)
        yield environment


@pytest.fixture
async def client(settings: Settings) -> Client:
    """A client of the real server."""
    client = await connect_temporal(settings.temporal)
    await ensure_search_attributes(client)
    return client


@pytest.fixture
def options() -> LifecycleOptions:
    """The default times: this server skips them."""
    return OPTIONS


@pytest.fixture
async def driver(
    request: pytest.FixtureRequest,
    environment: WorkflowEnvironment,
    pool: asyncpg.Pool,
    settings: Settings,
    options: LifecycleOptions,
    job_id: int,
    archive_activities: ArchiveActivities,
    database_activities: DatabaseActivities,
) -> AsyncIterator[Driver]:
    """A driver of one log, with a worker that serves both queues."""
    task_queue, client = settings.temporal.task_queue, environment.client
    async with lifecycle_workers(client, task_queue, database_activities, archive_activities):
        driver = Driver(job_id, options, environment, pool, settings, task_queue)
        yield driver
        if request.config.getoption("--record-histories"):
            await record(driver.handle, request.node.name)


@pytest.fixture
def database_activities(pool: asyncpg.Pool) -> DatabaseActivities:
    """The real activities; tests override this fixture to inject faults."""
    return DatabaseActivities(pool)


@pytest.fixture
def archive_activities(pool: asyncpg.Pool, settings: Settings) -> ArchiveActivities:
    """The real activities; tests override this fixture to inject faults."""
    return ArchiveActivities(pool, Archive(settings.s3, 4))
