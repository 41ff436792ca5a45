"""Fixtures of the service tests: a web client, stored parts, and a loop for property tests."""

import asyncio

import asyncpg
import pytest

from db import aggregation, logs
from db.parts import store_batch
from logflume.archive.store import Archive
from logflume.domain import Content
from tests.support.parts import part
from tests.support.services import serving


@pytest.fixture
async def web(settings, pool):
    """A client of a web service in this process; it sends the token."""
    async with serving(settings, pool) as client:
        yield client


@pytest.fixture
async def connection(pool):
    """A connection of the pool."""
    async with pool.acquire() as connection:
        yield connection


@pytest.fixture
def store(pool, job_id):
    """Stores parts of the test's job, each as `(number, content)` or `(…, fields of Part)`."""

    async def store(*parts) -> None:
        async with pool.acquire() as connection:
            listed = [part(job_id, n, content, **dict(*fields)) for n, content, *fields in parts]
            await store_batch(connection, listed)

    return store


@pytest.fixture
def aggregate(pool, job_id):
    """Aggregates the log of the test's job, or of another one."""

    async def aggregate(job: int = job_id, *, force: bool = False) -> Content:
        async with pool.acquire() as connection:
            return await aggregation.aggregate(connection, job, force=force, restore=False)

    return aggregate


@pytest.fixture
def move_to(pool, settings, job_id, store, aggregate):
    """Stores a log and brings it to a stage of its lifecycle; returns its content."""

    async def move_to(stage: str, pieces: list[bytes]) -> bytes:
        await store(*enumerate(pieces), (len(pieces), b"", {"final": True}))
        content = b"".join(pieces)
        if stage == "parts":
            return content
        row = await aggregate()
        if stage == "database":
            return content

        async def read(start: int, size: int) -> bytes:
            return content[start : start + size]

        async with pool.acquire() as connection:
            await logs.mark_archiving(connection, job_id, row.sha256)
            archive = Archive(settings.s3, 1)
            await archive.upload(job_id, read, row.bytes, sha256=row.sha256, parts=row.parts)
            if stage == "archiving":
                return content
            await logs.mark_verified(connection, job_id, row.sha256)
            assert await logs.purge(connection, job_id, row.sha256)
            if stage == "parts dropped":
                await connection.execute("DELETE FROM log_parts")
        return content

    return move_to


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
