"""A minimal HTTP client, so that the server is what is measured; runs in a subprocess."""

import asyncio
import re
import time
from typing import NamedTuple, Self, cast

from bench.servers import Server
from bench.subprocess_worker import Send

LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
WARM_SECONDS = 1.0


class Load(NamedTuple):
    """Results of a load; `waits` are the seconds of each request."""

    seconds: float
    bytes: int
    waits: list[float]

    @property
    def rate(self) -> float:
        """Requests per second."""
        return len(self.waits) / self.seconds

    @property
    def megabytes(self) -> float:
        """Megabytes per second."""
        return self.bytes / self.seconds / 1e6


class Http(asyncio.Protocol):
    """A keep-alive connection; supports responses with a content length."""

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
        """GET a path and discard the body; returns its size in bytes.

        Raises:
            ConnectionError: the status is not 200, or the connection was lost.
        """
        assert self._transport  # noqa: S101 - `open` connected
        self._answered = asyncio.get_running_loop().create_future()
        self._transport.write(self._server.request(path))
        return await self._answered

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Store the transport."""
        # uvloop's transport has the same methods, but another base class.
        self._transport = cast("asyncio.WriteTransport", transport)

    def data_received(self, data: bytes) -> None:
        """Count the body's bytes."""
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
        """Fail the pending request."""
        self._fail("the server closed the connection")

    def _take(self, size: int) -> None:
        self._left -= size
        if self._left == 0 and self._answered:
            self._answered.set_result(self._size)

    def _fail(self, why: str) -> None:
        if self._answered and not self._answered.done():
            self._answered.set_exception(ConnectionError(why))


async def load(send: Send, server: Server, path: str, connections: int, seconds: float) -> None:
    """GET a path repeatedly over connections; sends True once warm, then the `Load`."""
    clients = [await Http.open(server) for _ in range(connections)]
    await _ask(clients, path, WARM_SECONDS)
    send(True)  # noqa: FBT003
    send(await _ask(clients, path, seconds))


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
