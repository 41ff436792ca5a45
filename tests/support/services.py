"""The drain and the web service, run inside the test's own process."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import asyncpg
import httpx
from pydantic import SecretStr

from db.connect import open_pool
from drain.drain import Drain
from drain.flush import SESSIONS
from drain.live.forwarder import Forwarder
from drain.metrics import signal_sent
from drain.shards import Shards
from logflume.pusher import make_sender
from logflume.settings import Settings
from logflume_cli.devstack.home import open_home
from logflume_cli.services import lazy_workflows
from logflume_cli.web import web_services
from web.app import make_app
from web.server import Server
from workflows.client.signaller import Signaller


def as_process(settings: Settings, process: str) -> Settings:
    """The same settings with the database user of this process."""
    home = open_home(settings.stack.folder, {})
    owner, own = (home.database_url("", one).split("@")[0] for one in (None, process))
    changed = {
        name: SecretStr(url.get_secret_value().replace(owner, own))
        for name in ("url", "direct_url")
        if (url := getattr(settings.database, name))
    }
    return settings.model_copy(update={"database": settings.database.model_copy(update=changed)})


@asynccontextmanager
async def draining(settings: Settings, *, sharded: bool = False) -> AsyncIterator[Drain]:
    """Run a drain in this process; stop it as SIGTERM does."""
    async with AsyncExitStack() as stack:
        shards = Shards(settings.amqp) if sharded else None
        if shards:
            stack.push_async_callback(shards.close)
        database = as_process(settings, "drain").database
        pool = await open_pool(database, settings.drain.flushes + 1, SESSIONS)
        stack.push_async_callback(pool.close)
        workflows = await lazy_workflows(settings)
        signaller = Signaller(
            workflows, interval=0.2, in_flight=4, max_backoff=5, on_sent=signal_sent
        )
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
    """Run the web service on a free port; yields a client that sends the token."""
    changed = {"auth_token": SecretStr(TOKEN), **web}
    settings = settings.model_copy(update={"web": settings.web.model_copy(update=changed)})
    async with AsyncExitStack() as stack:
        services = await web_services(settings, pool, stack)
        server = Server(make_app(services), port=port)
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
