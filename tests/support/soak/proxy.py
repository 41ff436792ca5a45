"""A TCP proxy that misbehaves like a bad network."""

import asyncio
import itertools
from collections.abc import Iterator
from contextlib import suppress

HOST = "127.0.0.1"
PIECE = 64 * 1024
# How many halves of responses reach the caller; each response of a handshake is one step.
HALVES = 14


class Proxy:
    """Forwards connections to a local port, as `mode` says.

    `flow`: unchanged. `cut`: resets all connections, new ones too. `stall`: holds back all data
    until the mode ends. `delay`: delays each piece. `half-close`: the caller reads EOF, the server
    notices nothing. `break-off`: resets all, and resets new ones within the first responses:
    before one, in the middle of it or after it.
    """

    def __init__(self, to_port: int) -> None:
        self._to_port = to_port
        self._links: set[_Link] = set()
        self._breaks: Iterator[int] = itertools.cycle(range(HALVES))
        self.port = 0
        self.mode = "flow"
        self.delay = 0.0
        self.flows = asyncio.Event()
        self.flows.set()
        self._server: asyncio.Server | None = None

    async def start(self) -> int:
        """Listen; returns the port."""
        self._server = await asyncio.start_server(self._accept, HOST, 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self.port

    def turn(self, mode: str, delay: float = 0.0) -> None:
        """Change the mode; `delay` is in seconds."""
        self.mode, self.delay = mode, delay
        if mode == "stall":
            self.flows.clear()
        else:
            self.flows.set()
        for link in list(self._links):
            if mode in ("cut", "break-off"):
                link.abort()
            elif mode == "half-close":
                link.end_answers()

    def lead_to(self, port: int) -> None:
        """Lead new connections to another local port; open ones stay."""
        self._to_port = port

    def break_off(self, halves: int) -> None:
        """Reset each new connection after this many halves of responses."""
        self._breaks = itertools.repeat(halves)
        self.turn("break-off")

    def close(self) -> None:
        """Reset all connections and stop listening."""
        self.turn("cut")
        if self._server:
            self._server.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = _Link(self, writer)
        self._links.add(link)
        try:
            if self.mode != "cut":
                if self.mode == "break-off":
                    link.left = next(self._breaks)
                await link.carry(reader, self._to_port)
        except OSError:
            pass
        finally:
            link.abort()
            self._links.discard(link)


class _Link:
    """One proxied connection."""

    def __init__(self, proxy: Proxy, caller: asyncio.StreamWriter) -> None:
        self._proxy = proxy
        self._caller = caller
        self._target: asyncio.StreamWriter | None = None
        self._has_ended = False
        self.left: int | None = None  # halves of responses until the reset

    def abort(self) -> None:
        for writer in (self._caller, self._target):
            if writer:
                writer.transport.abort()

    def end_answers(self) -> None:
        if not self._has_ended:
            self._has_ended = True
            with suppress(OSError):
                self._caller.write_eof()

    async def carry(self, reader: asyncio.StreamReader, to_port: int) -> None:
        answers, self._target = await asyncio.open_connection(HOST, to_port)
        if self._proxy.mode == "half-close":
            self.end_answers()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._carry(reader, self._target))
            group.create_task(self._carry(answers, self._caller, is_answer=True))

    async def _carry(
        self, source: asyncio.StreamReader, to: asyncio.StreamWriter, *, is_answer: bool = False
    ) -> None:
        held: asyncio.Queue[bytes] = asyncio.Queue()
        reading = asyncio.create_task(self._read(source, held, is_answer=is_answer))
        try:
            while piece := await held.get():
                await self._proxy.flows.wait()
                await asyncio.sleep(self._proxy.delay)
                if is_answer and self._has_ended:
                    continue
                if is_answer and self.left is not None:
                    piece = piece[: len(piece) * min(self.left, 2) // 2]
                    self.left = max(0, self.left - 2)
                to.write(piece)
                await to.drain()
                if is_answer and self.left == 0:
                    self.abort()
            await self._proxy.flows.wait()
            if not (is_answer and self._has_ended):
                to.write_eof()
        except OSError:
            self.abort()
        finally:
            reading.cancel()

    async def _read(
        self, source: asyncio.StreamReader, held: asyncio.Queue[bytes], *, is_answer: bool
    ) -> None:
        piece = b"-"
        while piece:
            try:
                piece = await source.read(PIECE)
            except OSError:
                piece = b""
                self.abort()
            # After a caller gave up, its data must not arrive later than its repetition elsewhere.
            if not piece and not is_answer and not self._proxy.flows.is_set():
                self.abort()
            held.put_nowait(piece)
