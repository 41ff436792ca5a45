"""What property tests need: hypothesis calls them as plain functions, many times."""

import asyncio

import asyncpg
import pytest


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
