"""A reader's side of Pusher: a subscriber of a few lines, and a web for webhooks to come to."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import httpx
import uvicorn

import temporal
from archive.store import Archive
from settings import PusherSettings
from web.app import make_app

TOKEN = "the-token"
AUTHORIZED = {"Authorization": f"token {TOKEN}"}


class Subscriber:
    """A connection to a Pusher server that speaks the protocol's version 7."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self.socket_id = ""

    async def next(self, event: str) -> dict[str, Any]:
        """The next message, which must be of this event."""
        message = json.loads((await self._socket.receive(timeout=20)).data)
        assert message["event"] == event, message
        return message

    async def subscribe(self, channel: str, **data: str) -> None:
        await self._send("pusher:subscribe", channel=channel, **data)
        await self.next("pusher_internal:subscription_succeeded")

    async def unsubscribe(self, channel: str) -> None:
        await self._send("pusher:unsubscribe", channel=channel)

    async def parts(self, count: int) -> list[dict[str, Any]]:
        """The next so many events of a log, as readers see them."""
        return [json.loads((await self.next("job:log"))["data"]) for _ in range(count)]

    async def _send(self, event: str, **data: str) -> None:
        await self._socket.send_json({"event": event, "data": data})


@asynccontextmanager
async def subscriber(pusher: PusherSettings) -> AsyncIterator[Subscriber]:
    """A subscriber that is connected."""
    address = f"ws://{pusher.host}:{pusher.port}/app/{pusher.key}?protocol=7&client=test&version=1"
    async with aiohttp.ClientSession() as session, session.ws_connect(address) as socket:
        one = Subscriber(socket)
        greeting = await one.next("pusher:connection_established")
        one.socket_id = json.loads(greeting["data"])["socket_id"]
        yield one


@asynccontextmanager
async def serving(settings, pool, port: int = 0) -> AsyncIterator[httpx.AsyncClient]:
    """The web in this process, and a client of it that sends no token by itself."""
    app = make_app(
        settings, pool, Archive(settings.s3, 1), await temporal.connect(settings.temporal)
    )
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_config=None))
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
        if task.done():
            task.result()
    address = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    try:
        async with httpx.AsyncClient(base_url=address) as client:
            yield client
    finally:
        server.should_exit = True
        await task
