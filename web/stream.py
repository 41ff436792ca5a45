"""`/stream`: a log's history and what follows it, as server-sent events."""

import base64
import re
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Annotated, Literal

import asyncpg
import msgspec
import structlog
from litestar import get
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath, HeaderParameter, QueryParameter
from litestar.response import Stream

from db import reading
from db.connect import UNREACHABLE
from logflume.domain import Log, StoredPart
from logflume.errors import LogflumeError
from web.auth import READERS
from web.content import ACQUIRE_SECONDS, SLICE_BYTES, Content, check_not_expired
from web.lookup import check_maintenance, find_content, find_log
from web.metrics import STREAMS, STREAMS_SENT_AWAY
from web.models import errors
from web.services import HttpRequest, Injected, Services
from web.streams.cursor import Cursor
from web.streams.follower import Follower, Sign, Told

log = structlog.get_logger()

# `X-Accel-Buffering`: proxies must not hold events back.
HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
_OFFSET = re.compile(r"([0-9a-f]{64}):(\d{1,18})", re.ASCII)
RETRY = b"retry: 1000\n\n"
HEARTBEAT = b": heartbeat\n\n"

Encoding = Annotated[
    Literal["text", "base64"],
    QueryParameter(description="base64: the bytes as they came, else text made of each part"),
]
LastEventId = Annotated[
    str, HeaderParameter(name="Last-Event-ID", description="go on after this event")
]


@get(
    "/logs/{job_id:str}/stream",
    summary="A log's parts as they come",
    tags=["logs"],
    media_type="text/event-stream",
    responses={
        200: ResponseSpec(str, media_type="text/event-stream", description="events without end"),
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
    """Tell a log's history, then its parts as they come, then that it is final.

    Events: `part` (`id`: where to resume; data: `number`, `content`, `final` and `in_order`, false
    for a part that belongs above what was told), `reset` (what was told is no longer the log),
    `final`, `reconnect`.
    """
    found = await find_log(services, job_id)
    check_not_expired(found)
    events = await _events(services, found, last_event_id, encoding)
    ends_at = services.access.ends_at(request)
    return Stream(_guarded(events, ends_at), media_type="text/event-stream", headers=HEADERS)


async def _events(
    services: Services, found: Log, last_event_id: str, encoding: str
) -> AsyncIterator[bytes]:
    if found.aggregated_at:
        async with services.pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
            parts_are_there = await reading.has_all_parts(connection, found.id)
        if not parts_are_there:
            return _of_content(await find_content(services, found), last_event_id, encoding)
    await check_maintenance(services)
    cursor = Cursor.parse(last_event_id)
    if last_event_id and cursor is None:
        cursor = Cursor(-1, 0)  # a place in no log there is: the reader is told to begin again
        cursor.next = 0
    return _of_parts(Follower(services.hub, found.job_id, cursor), encoding)


async def _of_parts(follower: Follower, encoding: str) -> AsyncIterator[bytes]:
    async with aclosing(follower.follow()) as following:
        async for told in following:
            match told:
                case Told(part, in_order):
                    yield _part(part, str(follower.cursor), encoding, in_order=in_order)
                case Sign.HEARTBEAT:
                    yield HEARTBEAT
                case sign:
                    if sign is Sign.RECONNECT:
                        STREAMS_SENT_AWAY.inc()
                    yield _event(sign.value, str(follower.cursor))


async def _of_content(content: Content, last_event_id: str, encoding: str) -> AsyncIterator[bytes]:
    """Tell a log whose parts went with their partition: slices of its content, numbered anew."""
    place = _OFFSET.fullmatch(last_event_id)
    start = int(place[2]) if place and place[1] == content.etag else 0
    start = start if start <= content.size else 0
    if last_event_id and not start:
        yield _event(Sign.RESET.value, f"{content.etag}:0")
    number = -(-start // SLICE_BYTES)
    async for piece in content.read(start):
        start += len(piece)
        part = StoredPart(0, number, start == content.size, piece)
        yield _part(part, f"{content.etag}:{start}", encoding, in_order=True)
        number += 1
    yield _event(Sign.FINAL.value, f"{content.etag}:{start}")


async def _guarded(events: AsyncIterator[bytes], ends_at: float) -> AsyncIterator[bytes]:
    """Count the reader, and send it away where what it reads from is away, or its link ended."""
    yield RETRY
    with STREAMS.track_inprogress():
        try:
            async for event in events:
                if time.time() >= ends_at:
                    yield _event(Sign.RECONNECT.value, None)
                    return
                yield event
        except (*UNREACHABLE, asyncpg.PostgresError, LogflumeError) as error:
            log.warning("stream_failed", error=str(error) or type(error).__name__)
            STREAMS_SENT_AWAY.inc()
            yield _event(Sign.RECONNECT.value, None)


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
