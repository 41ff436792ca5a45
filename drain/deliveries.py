"""Parses deliveries from the bytes of a connection; aiormq receives every other frame unchanged.

aiormq wakes four tasks and decodes every property for each message, which was most of the drain's
CPU. And if pamqp cannot decode a property, the connection is closed, the message is delivered
again, and so on forever. Here properties are decoded on demand; unreadable ones are omitted or
replaced.
"""

import asyncio
import struct
from collections.abc import Callable
from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple

import aio_pika
from aiormq.connection import TransportFactory
from aiormq.exceptions import AMQPConnectionError
from pamqp import decode
from pamqp.common import FieldTable
from yarl import URL

_FRAME = struct.Struct(">BHI")
_FRAME_BYTES = _FRAME.size + 1
_METHOD, _HEADER, _BODY, _HEARTBEAT = 1, 2, 3, 8
_END = 0xCE
_DELIVER = struct.pack(">HH", 60, 60)
_LONG_LONG = struct.Struct(">Q")
_BODY_SIZE_AT, _FLAGS_AT = 4, 12
# How often aiormq receives a heartbeat on a connection that carries only deliveries.
ALIVE_SECONDS = 1.0
_ALIVE = _FRAME.pack(_HEARTBEAT, 0, 0) + bytes([_END])

SHORT_BYTES = 255
_CONTENT_TYPE, _HEADERS, _TIMESTAMP, _TYPE = 0x8000, 0x2000, 0x40, 0x20
_USER_ID, _APP_ID = 0x10, 0x8
# Properties are in the order of their flags, highest first; all but these are short strings.
_TABLES = (_HEADERS,)
_SIZES = {0x1000: 1, 0x800: 1, _TIMESTAMP: 8}
_MORE_FLAGS = 1
_UNREADABLE = (ValueError, OverflowError, OSError, RecursionError)


class Properties(NamedTuple):
    """The readable properties of a message that are copied to a dead letter."""

    content_type: str | None
    headers: FieldTable
    timestamp: datetime | None
    type: str | None
    user_id: str | None
    app_id: str | None


class Delivery:
    """A delivered message; `tag` is its number on the channel, `size` the bytes of its body.

    `route`: exchange and routing key as in the frame. A refused message has neither properties nor
    body.
    """

    __slots__ = ("_header", "_left", "_pieces", "_route", "body", "is_refused", "size", "tag")

    def __init__(self, tag: int, body: bytes = b"", route: bytes = bytes(2)) -> None:
        self.tag = tag
        self.body = body
        self._route = route
        self._header = bytes(_FLAGS_AT + 2)
        self.size = len(body)
        self.is_refused = False
        self._pieces: list[bytes] = []
        self._left = 0

    def begin(self, header: bytes, accepts: Callable[[int], bool]) -> bool:
        """Read the content header, and refuse the message by its size; True if it has no body."""
        self.size = self._left = _LONG_LONG.unpack_from(header, _BODY_SIZE_AT)[0]
        self.is_refused = not accepts(self.size)
        if not self.is_refused:
            self._header = header
        return not self.size

    def add(self, piece: bytes) -> bool:
        """Add a frame of the body; True if it was the last."""
        self._left -= len(piece)
        if self.is_refused:
            return self._left <= 0
        if self._left > 0:
            self._pieces.append(piece)
            return False
        if self._pieces:
            self.body = b"".join((*self._pieces, piece))
            self._pieces.clear()
        else:
            self.body = piece
        return True

    @property
    def published_at(self) -> datetime | None:
        """The property `timestamp`, aware."""
        return self._time(self._locate().get(_TIMESTAMP))

    @property
    def routing_key(self) -> str:
        """What it was published with."""
        return _short(self._route[1 + self._route[0] :])

    def read(self) -> Properties:
        """Decode the properties."""
        at = self._locate()
        return Properties(
            self._text(at.get(_CONTENT_TYPE)),
            self._table(at.get(_HEADERS)),
            self._time(at.get(_TIMESTAMP)),
            self._text(at.get(_TYPE)),
            self._text(at.get(_USER_ID)),
            self._text(at.get(_APP_ID)),
        )

    def _locate(self) -> dict[int, slice]:
        """The position of each property, with its length prefix; a truncated one is left out."""
        header, at = self._header, _FLAGS_AT
        flags = more = int.from_bytes(header[at : at + 2], "big")
        at += 2
        while more & _MORE_FLAGS:
            more = int.from_bytes(header[at : at + 2], "big")
            at += 2
        positions: dict[int, slice] = {}
        for flag, size in _layout(flags):
            begin = at
            if size:
                at += size
            elif flag in _TABLES:
                at += 4 + int.from_bytes(header[at : at + 4], "big")
            else:
                at += 1 + int.from_bytes(header[at : at + 1], "big")
            if at > len(header):
                break
            positions[flag] = slice(begin, at)
        return positions

    def _text(self, position: slice | None) -> str | None:
        return None if position is None else _short(self._header[position])

    def _time(self, position: slice | None) -> datetime | None:
        if position is None:
            return None
        try:
            return decode.timestamp(self._header[position])[1]
        except _UNREADABLE:
            return None

    def _table(self, position: slice | None) -> FieldTable:
        if position is None:
            return {}
        try:
            return decode.field_table(self._header[position])[1]
        except _UNREADABLE:
            return {}


def _short(data: bytes) -> str:
    """Decode a short string with its length prefix."""
    # Replacement characters are longer than the bytes they replace: cut to what AMQP allows.
    return data[1:].decode("utf-8", "replace").encode()[:SHORT_BYTES].decode("utf-8", "ignore")


@lru_cache(maxsize=64)
def _layout(flags: int) -> tuple[tuple[int, int], ...]:
    """The set flags, in order, each with the size of its property; 0: it has a length prefix."""
    bits = (1 << bit for bit in range(15, 1, -1))
    return tuple((flag, _SIZES.get(flag, 0)) for flag in bits if flags & flag)


class Frames:
    """Separates deliveries from the other frames of a stream; no I/O.

    Each complete delivery goes to `receive`. Before that, `accepts` decides by the bytes of its
    body; otherwise the delivery is refused, without the body. Delivery tags belong to a channel,
    so only one channel of the connection may consume.
    """

    def __init__(self) -> None:
        self.receive: Callable[[Delivery], None] = lambda _: None
        self.accepts: Callable[[int], bool] = lambda _: True
        self.has_deliveries = False
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._needed = _FRAME_BYTES
        self._open: dict[int, Delivery] = {}
        self._is_broken = False

    def feed(self, data: bytes) -> bytes:
        """Process bytes that were read, split anywhere; returns the other frames, all complete."""
        if self._is_broken:
            return data
        self._held.append(data)
        self._held_bytes += len(data)
        if self._held_bytes < self._needed:
            return b""
        data = b"".join(self._held)
        others: list[bytes] = []
        at = self._take(data, others)
        self._held = [data[at:]] if at < len(data) else []
        self._held_bytes = len(data) - at
        return b"".join(others)

    def _take(self, data: bytes, others: list[bytes]) -> int:
        """Process all complete frames; returns where they end."""
        at, end = 0, len(data)
        while end - at >= _FRAME_BYTES:
            kind, channel, size = _FRAME.unpack_from(data, at)
            stop = at + _FRAME_BYTES + size
            if not (_METHOD <= kind <= _BODY or kind == _HEARTBEAT):
                return self._give_up(data, at, others)
            if stop > end:
                self._needed = stop - at
                return at
            if data[stop - 1] != _END:
                return self._give_up(data, at, others)
            if not self._is_taken(kind, channel, data, at + _FRAME.size, stop - 1):
                others.append(data[at:stop])
            at = stop
        self._needed = _FRAME_BYTES
        return at

    def _is_taken(self, kind: int, channel: int, data: bytes, begin: int, stop: int) -> bool:
        if kind == _METHOD:
            if not data.startswith(_DELIVER, begin):
                # The channel is closed, so its unfinished content ends here.
                self._open.pop(channel, None)
                return False
            name_at = begin + len(_DELIVER)
            tag_at = name_at + 1 + data[name_at]
            tag = _LONG_LONG.unpack_from(data, tag_at)[0]
            # After the tag: whether it is redelivered.
            self._open[channel] = Delivery(tag, route=data[tag_at + 9 : stop])
            self.has_deliveries = True
            return True
        delivery = self._open.get(channel)
        if delivery is None:  # heartbeats, and content of get or return
            return False
        payload = data[begin:stop]
        if delivery.begin(payload, self.accepts) if kind == _HEADER else delivery.add(payload):
            del self._open[channel]
            self.receive(delivery)
        return True

    def _give_up(self, data: bytes, at: int, others: list[bytes]) -> int:
        """Pass on bytes that are not frames: aiormq raises the right error for them."""
        self._is_broken = True
        others.append(data[at:])
        return len(data)


class Connection(aio_pika.Connection):
    """aio-pika's connection, with deliveries that go to `frames.receive`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.frames = Frames()
        self.kwargs["transport_factory"] = _Transports(self.frames)


class _Transports(TransportFactory):
    """Opens streams like aiormq's, by TCP or TLS, with `Frames` in front of them."""

    def __init__(self, frames: Frames) -> None:
        self._frames = frames

    async def create(
        self, url: URL, **kwargs: Any
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        provider = kwargs.pop("ssl_context_provider")
        tls = await provider.get_context() if url.scheme == "amqps" else None
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(loop=loop)
        protocol = Protocol(reader, self._frames)
        try:
            transport, _ = await loop.create_connection(
                lambda: protocol, url.host or "", url.port or 0, ssl=tls, **kwargs
            )
        except OSError as error:
            raise AMQPConnectionError(*error.args) from error
        return reader, asyncio.StreamWriter(transport, protocol, reader, loop)


class Protocol(asyncio.StreamReaderProtocol):
    """Feeds a stream reader with all frames but deliveries."""

    def __init__(self, reader: asyncio.StreamReader, frames: Frames) -> None:
        self._clock = asyncio.get_running_loop().time
        super().__init__(reader)
        self._frames = frames
        self._alive_at = 0.0

    def data_received(self, data: bytes) -> None:
        """Pass on other frames, or a heartbeat if there are only deliveries.

        RabbitMQ sends no heartbeats while it sends deliveries, and aiormq closes a connection
        that is silent.
        """
        others = self._frames.feed(data)
        now = self._clock()
        if not others and self._frames.has_deliveries and now - self._alive_at > ALIVE_SECONDS:
            others = _ALIVE
        if others:
            self._alive_at = now
            super().data_received(others)
