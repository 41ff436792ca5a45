"""Databases of tests."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from logflume_cli.devstack.home import Home


@asynccontextmanager
async def new_database(servers: Home, name: str) -> AsyncIterator[str]:
    """The URL of a new database with the schema, which is dropped afterwards."""
    admin = await asyncpg.connect(servers.database_url("postgres"))
    try:
        # Copying files takes a third of the CPU of writing all pages to the WAL.
        await admin.execute(f"CREATE DATABASE {name} TEMPLATE logflume STRATEGY FILE_COPY")
        yield servers.database_url(name)
        await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    finally:
        await admin.close()
