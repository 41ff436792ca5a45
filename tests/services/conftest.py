"""Fixtures of the service tests: a web client, stored parts, and a loop for property tests."""

import asyncio

import asyncpg
import pytest

from db.parts import store_batch
from tests.support.parts import part
from tests.support.services import serving


@pytest.fixture
async def web(settings, pool):
    """A client of a web service in this process; it sends the token."""
    async with serving(settings, pool) as client:
        yield client


@pytest.fixture
def store(pool, job_id):
    """Stores parts of the test's job, each as `(number, content)` or `(…, fields of Part)`."""

    async def store(*parts) -> None:
        async with pool.acquire() as connection:
            made = [part(job_id, n, content, **dict(*fields)) for n, content, *fields in parts]
            await store_batch(connection, made)

    return store


@pytest.fixture
def runner():
    """An event loop that outlasts the examples of a test."""
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture
def blocking(runner, database_url):
    """A connection in that loop."""
    connection = runner.run(asyncpg.connect(database_url, server_settings={"timezone": "UTC"}))
    yield connection
    runner.run(connection.close())
