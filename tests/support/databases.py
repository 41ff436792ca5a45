"""Databases and clusters of tests."""

import asyncio
import fcntl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg

from logflume_cli.devstack.home import Home
from logflume_cli.devstack.stack import LocalStack


def cluster_with_schema(shared: Path) -> Path:
    """Make a stack's folder that has Postgres' data with the schema, once for all processes."""
    template = shared / "cluster"
    with (shared / "cluster.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not template.exists():
            stack = LocalStack(shared / "cluster.new")
            asyncio.run(stack.up(["postgres"]))
            asyncio.run(stack.down())
            stack.home.data_dir.rename(template)
    return template


def copy_cluster(template: Path, folder: Path) -> Path:
    """Copy the data, and the users' passwords, to a new stack's folder."""
    for name in ("secrets.json", "postgres"):
        subprocess.run(["cp", "-a", template / name, folder], check=True)
    return folder


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
