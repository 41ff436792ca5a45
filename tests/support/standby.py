"""A hot standby of the local stack's Postgres."""

import asyncio
import os
import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from logflume_cli.devstack import postgres
from logflume_cli.devstack.components import accepts_connections
from logflume_cli.devstack.home import HOST, USER, Home
from tests.support.waiting import until


def free_port() -> int:
    """A local port that is free now."""
    with socket.create_server((HOST, 0)) as probe:
        port: int = probe.getsockname()[1]
    return port


@asynccontextmanager
async def standby_of(home: Home, primary: int | None = None) -> AsyncIterator[int]:
    """Run a standby that follows the stack's Postgres, or this port; returns its own."""
    port = free_port()
    data = home.folder("postgres") / f"standby{port}"
    environment = {**os.environ, "PGPASSWORD": home.secrets["password"]}
    copy = [
        postgres._program("pg_basebackup"),
        "-h",
        HOST,
        "-p",
        str(primary or home.ports["postgres"]),
    ]
    copy += ["-U", USER, "-D", str(data), "-R", "--checkpoint=fast"]
    process = await asyncio.create_subprocess_exec(
        *postgres._as_server_user(), *copy, env=environment
    )
    assert await process.wait() == 0
    options = {"port": str(port), "listen_addresses": HOST, **postgres.OPTIONS}
    settings = [part for item in options.items() for part in ("-c", "=".join(item))]
    server = [postgres._program("postgres"), "-D", str(data), "-k", "", *settings]
    with home.log("standby").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *postgres._as_server_user(), *server, stderr=log, start_new_session=True
        )
    try:
        await until(lambda: accepts_connections(HOST, port))
        yield port
    finally:
        process.terminate()
        await process.wait()
        shutil.rmtree(data)
