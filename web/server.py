"""The HTTP server: uvicorn, with limits on what a connection may send and how long it may take."""

import asyncio
import resource
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any

import structlog
import uvicorn
from litestar.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from web.metrics import REFUSED

log = structlog.get_logger()

# The request line and headers of a request, and its trailers.
HEAD_BYTES = 64 * 1024
HEADERS = 100
# Parsing many takes long: 30,000 fit into a head.
PARAMETERS = 1000
HEAD_SECONDS = 10.0
# A body must be complete, or have grown by this many bytes, every so many seconds.
BODY_SECONDS = 30.0
BODY_BYTES = 512 * 1024
# What a client sends after its response is discarded within these limits: if the connection were
# closed at once, the client could not read the response.
LINGER_SECONDS = 5.0
LINGER_BYTES = 1024 * 1024
# A reader must take this many bytes of its response every so many seconds.
STALL_SECONDS = 60.0
STALL_BYTES = 64 * 1024
# Requests sent before the response to the first one.
PIPELINED = 16

# With full heads, they hold 512 MiB.
MAX_CONNECTIONS = 8192
# Files for everything else: Postgres, RabbitMQ, the archive, listening sockets.
OTHER_FILES = 100
WARN_SHARE = 0.8
WARN_SECONDS = 60.0


class Connections(ServerState):
    """The open connections of a server, at most `limit`; idle ones give way to new ones."""

    def __init__(self) -> None:
        super().__init__()
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self.limit = max(min(files - OTHER_FILES, MAX_CONNECTIONS), 1)
        # Those without a request in progress; the one that is idle for longest comes first.
        self.idle: dict[BoundedProtocol, None] = {}
        self._warned_at = -WARN_SECONDS

    def admit(self) -> bool:
        """Close an idle connection if there are too many; False if none is idle."""
        if len(self.connections) > self.limit * WARN_SHARE:
            self._warn()
        if len(self.connections) <= self.limit:
            return True
        REFUSED.labels("connections").inc()
        oldest = next(iter(self.idle), None)
        if oldest is not None:
            oldest.drop()
        return oldest is not None

    def _warn(self) -> None:
        if time.monotonic() - self._warned_at >= WARN_SECONDS:
            self._warned_at = time.monotonic()
            log.warning("connections_near_limit", open=len(self.connections), limit=self.limit)


class BoundedProtocol(HttpToolsProtocol):
    """A connection; uvicorn's own has no limits on heads, time, pipelining and trailers."""

    server_state: Connections
    _timer: asyncio.TimerHandle | None = None
    _stall_timer: asyncio.TimerHandle | None = None
    _in_message = False  # part of a request was received, and the rest is missing
    _in_body = False
    _body_bytes = 0  # since the last check
    # Bytes received since the last complete head, body bytes or end of a message.
    _unparsed = 0
    _has_progress = False
    _refusal = HTTPStatus.BAD_REQUEST
    _is_refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start to wait for a request."""
        super().connection_made(transport)
        if self.server_state.admit():
            self.server_state.idle[self] = None
            self._limit(HEAD_SECONDS)
        else:
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timers."""
        super().connection_lost(exc)
        self.server_state.idle.pop(self, None)
        self._unset_keepalive_if_required()
        self._limit(None)
        if self._stall_timer:
            self._stall_timer.cancel()

    def drop(self) -> None:
        """Close the connection at once."""
        self.server_state.idle.pop(self, None)
        self.connections.discard(self)
        self.transport.abort()

    def data_received(self, data: bytes) -> None:
        """Parse at most `HEAD_BYTES` at a time, so that a head is refused before it is parsed."""
        if self._is_refused:
            self._unparsed += len(data)
            if self._unparsed > LINGER_BYTES:
                self.transport.abort()
            return
        while data and not self._is_refused:
            if self._unparsed >= HEAD_BYTES:
                self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
                return
            piece, data = data[: HEAD_BYTES - self._unparsed], data[HEAD_BYTES - self._unparsed :]
            self._has_progress = False
            super().data_received(piece)
            self._unparsed = 0 if self._has_progress else self._unparsed + len(piece)
            if self._in_message and len(self.headers) > HEADERS:
                self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        if (
            self._timer is None
            and not self._is_refused
            and (self._in_message or self._is_answered())
        ):
            self._limit(BODY_SECONDS if self._in_body else HEAD_SECONDS)

    def on_message_begin(self) -> None:
        """A request begins."""
        self._in_message = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """The head is complete: its time limit no longer applies.

        Raises:
            ValueError: the request is refused; the parser reports it as its own error.
        """
        if len(self.headers) > HEADERS:
            self._refusal = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            raise ValueError("too many headers")
        if self.url.count(b"&") > PARAMETERS:
            self._refusal = HTTPStatus.REQUEST_URI_TOO_LONG
            raise ValueError("too many parameters")
        if len(self.pipeline) >= PIPELINED:
            self._refusal = HTTPStatus.TOO_MANY_REQUESTS
            raise ValueError("too many requests without waiting for a response")
        super().on_headers_complete()
        self._has_progress = self._in_body = True
        self._body_bytes = 0
        self._limit(None)
        self.server_state.idle.pop(self, None)

    def on_body(self, body: bytes) -> None:
        """Count the bytes of a body."""
        self._has_progress = True
        self._body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is complete: the client need not send anything."""
        self._has_progress = True
        self._in_message = self._in_body = False
        self._limit(None)
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Wait for the next request; a client that still sends this one is given little time."""
        super().on_response_complete()
        if self._is_answered() and not self.transport.is_closing():
            if self._in_body:
                self._unset_keepalive_if_required()
                self._limit(LINGER_SECONDS)
            self.server_state.idle[self] = None

    def pause_writing(self) -> None:
        """Start to wait for the reader."""
        super().pause_writing()
        self._watch_reader(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        """The reader has taken most of what was sent."""
        super().resume_writing()
        if self._stall_timer:
            self._stall_timer.cancel()

    def send_400_response(self, _: str) -> None:
        """Refuse what cannot be parsed."""
        self._refuse(self._refusal)

    def _watch_reader(self, size: int) -> None:
        self._stall_timer = self.loop.call_later(STALL_SECONDS, self._check_reader, size)

    def _check_reader(self, before: int) -> None:
        size = self.transport.get_write_buffer_size()
        if before - size >= STALL_BYTES:
            self._watch_reader(size)
        else:
            REFUSED.labels("slow_reader").inc()
            self.transport.abort()

    def _is_answered(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _limit(self, seconds: float | None) -> None:
        """Limit the time in which the client must send what is missing; None: no limit."""
        if self._timer:
            self._timer.cancel()
        self._timer = None if seconds is None else self.loop.call_later(seconds, self._check_sender)

    def _check_sender(self) -> None:
        self._timer = None
        is_answered = self._is_answered()
        if self.flow.read_paused or (not is_answered and self._body_bytes >= BODY_BYTES):
            self._body_bytes = 0
            self._limit(BODY_SECONDS)
        elif self._in_message and not self._is_refused:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT)
        elif is_answered or self._is_refused:
            self.transport.close()

    def _refuse(self, status: HTTPStatus) -> None:
        """Close the connection, with a response unless one was sent or begun."""
        if self._is_refused:
            return
        self._is_refused = True
        REFUSED.labels(status.phrase.lower().replace(" ", "_")).inc()
        if self._in_body:
            can_respond = not self.pipeline and not self.cycle.response_started
        else:
            can_respond = self._is_answered()
        if can_respond:
            body = b'{"error":"%b"}' % status.phrase.lower().encode()
            self.transport.write(
                b"HTTP/1.1 %d %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n"
                b"connection: close\r\n\r\n%b" % (status, status.phrase.encode(), len(body), body)
            )
        if can_respond and self.transport.can_write_eof():
            self.transport.write_eof()
            self._limit(LINGER_SECONDS)
        else:
            self.transport.close()
        if self.cycle is not None:
            self.cycle.disconnected = True
            self.cycle.message_event.set()


class Server(uvicorn.Server):
    """Serves our app; the process handles signals itself."""

    def __init__(
        self, app: ASGIApp, *, trusted_proxies: Sequence[str] = (), **options: Any
    ) -> None:
        config = uvicorn.Config(
            app,
            http=BoundedProtocol,
            ws="none",
            log_config=None,
            # Its warnings are one per malformed request.
            log_level="error",
            access_log=False,
            server_header=False,
            proxy_headers=bool(trusted_proxies),
            forwarded_allow_ips=[*trusted_proxies],
            timeout_graceful_shutdown=10,
            **options,
        )
        super().__init__(config)
        self.server_state = Connections()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle no signals: uvicorn would raise them again and exit with an error."""
        yield
