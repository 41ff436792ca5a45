"""A log's bytes, and what a viewer needs to find its way in them."""

import asyncio
from typing import Annotated

from litestar import HttpMethod, Response, get, route
from litestar.exceptions import HTTPException
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath, QueryParameter
from litestar.response import Stream

from web.auth import READERS
from web.content import Content
from web.logs import REVALIDATE, OfAttempt
from web.lookup import find_content, find_log, settled, started
from web.models import OutlineBody, SearchBody, errors
from web.outline import outline_body
from web.ranges import Unsatisfiable, byte_range, matches
from web.search import Search, Turns
from web.services import HttpRequest, Injected

# A log is hostile: what a browser shows of it alone may run nothing.
BARE = REVALIDATE | {"Content-Security-Policy": "default-src 'none'; sandbox"}
# Searches under way and waiting: each takes a processor while it lasts.
SEARCHES = Turns(at_once=2, waiting=8)

Download = Annotated[str | None, QueryParameter(description="present: a file to keep")]
Query = Annotated[str, QueryParameter(name="q", min_length=1, max_length=1000)]
Case = Annotated[bool, QueryParameter(description="true: upper and lower case differ")]


@route(
    "/logs/{job_id:str}/raw",
    http_method=[HttpMethod.GET, HttpMethod.HEAD],
    summary="A log's bytes",
    tags=["logs"],
    media_type="text/plain",
    responses={
        206: ResponseSpec(bytes, media_type="text/plain", description="the bytes asked for"),
        304: ResponseSpec(None, description="the bytes are those of If-None-Match"),
        **errors(400, 403, 404, 410, 416, 500),
    },
    **READERS,
)
async def get_raw(
    request: HttpRequest,
    services: Injected,
    job_id: FromPath[str],
    attempt: OfAttempt = None,
    download: Download = None,
) -> Response[bytes] | Stream:
    """Stream the bytes as they came, from the parts, the database or the archive.

    Knows `Range` (one range), `If-Range` and `If-None-Match`.
    """

    async def read() -> Response[bytes] | Stream:
        log = await find_log(services, job_id)
        content = await find_content(services, log, attempt)
        return await _answer(request, content, download=download is not None)

    return await settled(read)


async def _answer(
    request: HttpRequest, content: Content, *, download: bool
) -> Response[bytes] | Stream:
    headers = BARE | {"Accept-Ranges": "bytes", "ETag": f'"{content.etag}"'}
    if matches(request.headers.get("if-none-match", ""), content.etag):
        return Response(b"", status_code=304, headers=headers, media_type="text/plain")
    if download:
        headers["Content-Disposition"] = f'attachment; filename="job-{content.log.job_id}.log"'
    span, status = _span(request, content), 200
    if span:
        headers["Content-Range"] = f"bytes {span[0]}-{span[1] - 1}/{content.size}"
        status = 206
    start, stop = span or (0, content.size)
    headers["Content-Length"] = str(stop - start)
    if request.method == HttpMethod.HEAD:
        stop = start
    pieces = await started(content.read(start, stop))
    return Stream(pieces, status_code=status, media_type="text/plain", headers=headers)


def _span(request: HttpRequest, content: Content) -> tuple[int, int] | None:
    """The range asked for; with `If-Range`, only where the log is still the one that was read."""
    etag = f'"{content.etag}"'
    if request.headers.get("if-range", etag) != etag:
        return None
    try:
        return byte_range(request.headers.get("range", ""), content.size)
    except Unsatisfiable:
        whole = {"Content-Range": f"bytes */{content.size}"}
        raise HTTPException(
            f"the log has {content.size} bytes", status_code=416, headers=whole
        ) from None


@get(
    "/logs/{job_id:str}/outline",
    summary="Where a log's lines, folds and timings are",
    tags=["logs"],
    responses=errors(400, 403, 404, 410, 500),
    **READERS,
)
async def get_outline(
    services: Injected, job_id: FromPath[str], attempt: OfAttempt = None
) -> OutlineBody:
    """Count lines and find markers without sending the log; `/raw` has the bytes by range."""

    async def read() -> OutlineBody:
        log = await find_log(services, job_id)
        content = await find_content(services, log, attempt)
        outline = await services.outlines.of(content)
        return outline_body(content, outline, await content.cursor())

    return await settled(read)


@get(
    "/logs/{job_id:str}/search",
    summary="Which lines of a log contain a text",
    tags=["logs"],
    responses=errors(400, 403, 404, 410, 500),
    **READERS,
)
async def search_log(
    services: Injected,
    job_id: FromPath[str],
    q: Query,
    attempt: OfAttempt = None,
    *,
    case: Case = False,
) -> SearchBody:
    """Find a plain text in what the lines show, without their colours."""

    async def read() -> SearchBody:
        log = await find_log(services, job_id)
        search = Search(q, case=case)
        content = await find_content(services, log, attempt)
        async for piece in content.read():
            # In a thread, so that other readers are served meanwhile.
            await asyncio.to_thread(search.feed, piece)
        search.end()
        return SearchBody(
            count=search.count, lines=search.lines, truncated=search.count > len(search.lines)
        )

    async with SEARCHES.turn():
        return await settled(read)


ROUTES = [get_raw, get_outline, search_log]
