"""`/stream`: the stored parts of a log, then new ones, as server-sent events."""

import base64
import re
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Annotated, Literal

import msgspec
import structlog
from litestar import get
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath, HeaderParameter, QueryParameter
from litestar.response import Stream

from db import reading
from db.errors import FAILURES
from logflume.domain import Log, StoredPart
from logflume.errors import LogflumeError
from web.auth import READERS
from web.content import SLICE_BYTES, Content, check_not_expired
from web.lookup import check_maintenance, find_content, find_log
from web.metrics import STREAMS, STREAMS_DISCONNECTED
from web.models import errors
from web.services import HttpRequest, Injected, Services
from web.streams.cursor import Cursor
from web.streams.follower import ControlEvent, Event, Follower, PartEvent

log = structlog.get_logger()

# `X-Accel-Buffering` keeps nginx from buffering the events.
HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
_OFFSET = re.compile(r"([0-9a-f]{64}):(\d{1,18})", re.ASCII)
RETRY = b"retry: 1000\n\n"
HEARTBEAT = b": heartbeat\n\n"

Encoding = Annotated[
    Literal["text", "base64"],
    QueryParameter(description="`base64`: exact bytes; `text`: each part decoded with replacement"),
]
LastEventId = Annotated[
    str, HeaderParameter(name="Last-Event-ID", description="resume after this event")
]


@get(
    "/logs/{job_id:str}/stream",
    summary="Stream the parts of a log",
    tags=["logs"],
    media_type="text/event-stream",
    responses={
        200: ResponseSpec(
            str,
            generate_examples=False,
            media_type="text/event-stream",
            description="server-sent events",
        ),
        **errors(400, 403, 404, 410, 500),
    },
    **READERS,
)
async def get_stream(
    request: HttpRequest,
    services: Injected,
    job_id: FromPath[str],
    encoding: Encoding = "text",
    last_event_id: LastEventId = "",
) -> Stream:
    """Send all stored parts, then new ones as they arrive, until the log ends.

    Events: `part` (its `id` is where to resume; data: `number`, `content`, `final`, `in_order`,
    which is false for a part that belongs above earlier ones), `reset` (discard all earlier parts:
    the log was replaced), `final`, `reconnect`.
    """
    async with services.hub.reading:
        log = await find_log(services, job_id)
        check_not_expired(log)
        events = await _events(services, log, last_event_id, encoding)
    ends_at = services.access.ends_at(request)
    return Stream(_guarded(events, ends_at), media_type="text/event-stream", headers=HEADERS)


async def _events(
    services: Services, log: Log, last_event_id: str, encoding: str
) -> AsyncIterator[bytes]:
    if log.aggregated_at:
        async with services.connection() as connection:
            has_all_parts = await reading.has_all_parts(connection, log.id)
        if not has_all_parts:
            return _from_content(await find_content(services, log), last_event_id, encoding)
    await check_maintenance(services)
    cursor = Cursor.parse(last_event_id)
    if last_event_id and cursor is None:
        cursor = Cursor(-1, 0)  # a position in no log, so the client gets a reset
        cursor.next = 0
    return _from_parts(Follower(services.hub, log.job_id, cursor), encoding)


async def _from_parts(follower: Follower, encoding: str) -> AsyncIterator[bytes]:
    async with aclosing(follower.follow()) as events:
        async for event in events:
            yield _encode(event, str(follower.cursor), encoding)


def _encode(event: Event, cursor: str, encoding: str) -> bytes:
    match event:
        case PartEvent(part, in_order):
            return _part(part, cursor, encoding, in_order=in_order)
        case ControlEvent.HEARTBEAT:
            return HEARTBEAT
        case ControlEvent.RECONNECT:
            STREAMS_DISCONNECTED.inc()
    return _event(event.value, cursor)


async def _from_content(
    content: Content, last_event_id: str, encoding: str
) -> AsyncIterator[bytes]:
    """Stream a log without parts: slices of its content, numbered from 0."""
    resumed = _OFFSET.fullmatch(last_event_id)
    start = int(resumed[2]) if resumed and resumed[1] == content.etag else 0
    start = start if start <= content.size else 0
    if last_event_id and not start:
        yield _event(ControlEvent.RESET.value, f"{content.etag}:0")
    number = -(-start // SLICE_BYTES)
    async for piece in content.read(start):
        start += len(piece)
        part = StoredPart(0, number, start == content.size, piece)
        yield _part(part, f"{content.etag}:{start}", encoding, in_order=True)
        number += 1
    yield _event(ControlEvent.FINAL.value, f"{content.etag}:{start}")


async def _guarded(events: AsyncIterator[bytes], ends_at: float) -> AsyncIterator[bytes]:
    """Count the stream; end it with `reconnect` when a dependency fails or its link expires."""
    yield RETRY
    with STREAMS.track_inprogress():
        try:
            async for event in events:
                if time.time() >= ends_at:
                    yield _event(ControlEvent.RECONNECT.value, None)
                    return
                yield event
        except (*FAILURES, LogflumeError) as error:
            log.warning("stream_failed", error=str(error) or type(error).__name__)
            STREAMS_DISCONNECTED.inc()
            yield _event(ControlEvent.RECONNECT.value, None)


def _part(part: StoredPart, cursor: str, encoding: str, *, in_order: bool) -> bytes:
    data: dict[str, object] = {"number": part.number, "content": "", "final": part.final}
    if encoding == "base64":
        data |= {"content": base64.b64encode(part.content).decode(), "encoding": encoding}
    else:
        data["content"] = part.content.decode("utf-8", "replace")
    return _event("part", cursor, data | {"in_order": in_order})


def _event(name: str, cursor: str | None, data: object = None) -> bytes:
    id_ = f"id: {cursor}\n" if cursor is not None else ""
    return f"event: {name}\n{id_}data: ".encode() + msgspec.json.encode(data or {}) + b"\n\n"


ROUTES = [get_stream]
