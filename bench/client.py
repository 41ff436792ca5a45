"""An HTTP client cheap enough not to be what is measured; runs in a process of its own."""

import asyncio
import re
import time
from typing import NamedTuple, Self, cast

from bench.servers import Server
from bench.subprocess_worker import Say

LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
WARM_SECONDS = 1.0


class Load(NamedTuple):
    """What a server did: `waits` are the seconds of each request."""

    seconds: float
    bytes: int
    waits: list[float]

    @property
    def rate(self) -> float:
        """Requests a second."""
        return len(self.waits) / self.seconds

    @property
    def megabytes(self) -> float:
        """Megabytes a second."""
        return self.bytes / self.seconds / 1e6


class Http(asyncio.Protocol):
    """A connection kept alive; knows answers that tell their length."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._head = b""
        self._size = self._left = 0
        self._answered: asyncio.Future[int] | None = None
        self._transport: asyncio.WriteTransport | None = None

    @classmethod
    async def open(cls, server: Server) -> Self:
        """Connect."""
        loop = asyncio.get_running_loop()
        made = await loop.create_connection(lambda: cls(server), server.host, server.port)
        return made[1]

    async def get(self, path: str) -> int:
        """Ask for a path and throw the body away; returns its size in bytes.

        Raises:
            ConnectionError: the answer was no 200, or the connection was lost.
        """
        assert self._transport  # noqa: S101 - `open` connected
        self._answered = asyncio.get_running_loop().create_future()
        self._transport.write(self._server.request(path))
        return await self._answered

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the way to send."""
        # uvloop's own transport is one in all but its base class.
        self._transport = cast("asyncio.WriteTransport", transport)

    def data_received(self, data: bytes) -> None:
        """Count the body."""
        if self._left:
            self._take(len(data))
            return
        self._head += data
        end = self._head.find(b"\r\n\r\n") + 4
        if end < 4:
            return
        head, got = self._head[:end], len(self._head) - end
        length, self._head = LENGTH.search(head), b""
        if not head.startswith(b"HTTP/1.1 200 ") or length is None:
            self._fail(f"not a 200 with a length: {head[:200]!r}")
            return
        self._size = self._left = int(length[1])
        self._take(got)

    def connection_lost(self, _: Exception | None) -> None:
        """Fail what waits."""
        self._fail("the server closed the connection")

    def _take(self, size: int) -> None:
        self._left -= size
        if self._left == 0 and self._answered:
            self._answered.set_result(self._size)

    def _fail(self, why: str) -> None:
        if self._answered and not self._answered.done():
            self._answered.set_exception(ConnectionError(why))


async def load(say: Say, server: Server, path: str, connections: int, seconds: float) -> None:
    """Ask for a path again and again over connections; says True once warm, then the `Load`."""
    clients = [await Http.open(server) for _ in range(connections)]
    await _ask(clients, path, WARM_SECONDS)
    say(True)  # noqa: FBT003
    say(await _ask(clients, path, seconds))


async def _ask(clients: list[Http], path: str, seconds: float) -> Load:
    began = time.perf_counter()
    waits: list[float] = []
    size = 0

    async def repeat(client: Http) -> None:
        nonlocal size
        now = time.perf_counter()
        while now < began + seconds:
            size += await client.get(path)
            waits.append(-now + (now := time.perf_counter()))

    await asyncio.gather(*map(repeat, clients))
    return Load(time.perf_counter() - began, size, waits)
