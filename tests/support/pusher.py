"""A minimal Pusher subscriber."""

import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from logflume.settings.servers import PusherSettings


class Subscriber:
    """A connection to a Pusher server, protocol version 7."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self.socket_id = ""

    async def next(self, event: str) -> dict[str, Any]:
        """The next message, which must have this event name."""
        message: dict[str, Any] = json.loads((await self._socket.receive(timeout=20)).data)
        assert message["event"] == event, message
        return message

    async def subscribe(self, channel: str, **data: str) -> None:
        await self._send("pusher:subscribe", channel=channel, **data)
        await self.next("pusher_internal:subscription_succeeded")

    async def unsubscribe(self, channel: str) -> None:
        await self._send("pusher:unsubscribe", channel=channel)

    async def parts(self, count: int) -> list[dict[str, Any]]:
        """The next `count` log events."""
        return [json.loads((await self.next("job:log"))["data"]) for _ in range(count)]

    async def _send(self, event: str, **data: str) -> None:
        await self._socket.send_json({"event": event, "data": data})


@asynccontextmanager
async def subscriber(pusher: PusherSettings) -> AsyncIterator[Subscriber]:
    """Connect a subscriber."""
    address = f"ws://{pusher.host}:{pusher.port}/app/{pusher.key}?protocol=7&client=test&version=1"
    async with aiohttp.ClientSession() as session, session.ws_connect(address) as socket:
        one = Subscriber(socket)
        greeting = await one.next("pusher:connection_established")
        one.socket_id = json.loads(greeting["data"])["socket_id"]
        yield one


KEY, SECRET = "the-key", "the-secret"


def signature(text: bytes, secret: str = SECRET) -> str:
    return hmac.new(secret.encode(), text, hashlib.sha256).hexdigest()
