"""The bytes of a log, its outline, and search."""

from typing import Annotated

from litestar import HttpMethod, Response, route
from litestar.exceptions import HTTPException
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath, QueryParameter
from litestar.response import Stream

from web.auth import READERS
from web.content import Content
from web.logs import REVALIDATE, OfAttempt, get_of_log
from web.lookup import find_content, find_log, retry_replaced, started
from web.models import OutlineBody, SearchBody, errors
from web.outline import outline_body
from web.ranges import Unsatisfiable, byte_range, matches
from web.scans import in_thread
from web.search import Search
from web.services import HttpRequest, Injected

# A log is hostile: a browser that shows it must not run anything in it.
BARE = REVALIDATE | {"Content-Security-Policy": "default-src 'none'; sandbox"}

Download = Annotated[str | None, QueryParameter(description="if present: download as a file")]
Query = Annotated[str, QueryParameter(name="q", min_length=1, max_length=1000)]
Near = Annotated[int, QueryParameter(ge=0, description="list the matches around this line")]
From = Annotated[
    int, QueryParameter(ge=0, description="search from this byte on, where a line starts")
]
FromLine = Annotated[int, QueryParameter(ge=0, description="the number of that line")]
Case = Annotated[bool, QueryParameter(description="`true`: case-sensitive")]


@route(
    "/logs/{job_id:str}/raw",
    http_method=[HttpMethod.GET, HttpMethod.HEAD],
    summary="Get the bytes of a log",
    tags=["logs"],
    media_type="text/plain",
    responses={
        206: ResponseSpec(
            bytes,
            generate_examples=False,
            media_type="text/plain",
            description="the requested range",
        ),
        304: ResponseSpec(
            None,
            generate_examples=False,
            description="not modified: `If-None-Match` names the current ETag",
        ),
        **errors(400, 403, 404, 409, 410, 416, 500, 502),
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
    """Stream the exact bytes from the parts, the database or the archive.

    Supports `Range` (one range), `If-Range` and `If-None-Match`.
    """

    async def read() -> Response[bytes] | Stream:
        log = await find_log(services, job_id)
        content = await find_content(services, log, attempt)
        return await _response(request, content, download=download is not None)

    return await retry_replaced(read)


async def _response(
    request: HttpRequest, content: Content, *, download: bool
) -> Response[bytes] | Stream:
    headers = BARE | {"Accept-Ranges": "bytes", "ETag": f'"{content.etag}"'}
    if matches(request.headers.get("if-none-match", ""), content.etag):
        return Response(b"", status_code=304, headers=headers, media_type="text/plain")
    if download:
        headers["Content-Disposition"] = f'attachment; filename="job-{content.log.job_id}.log"'
    selected, status = _range(request, content), 200
    if selected:
        headers["Content-Range"] = f"bytes {selected[0]}-{selected[1] - 1}/{content.size}"
        status = 206
    start, stop = selected or (0, content.size)
    headers["Content-Length"] = str(stop - start)
    if request.method == HttpMethod.HEAD:
        stop = start
    pieces = await started(content.read(start, stop))
    return Stream(pieces, status_code=status, media_type="text/plain", headers=headers)


def _range(request: HttpRequest, content: Content) -> tuple[int, int] | None:
    """The requested range; with `If-Range`, only if the log has not changed."""
    etag = f'"{content.etag}"'
    if request.headers.get("if-range", etag) != etag:
        return None
    try:
        return byte_range(request.headers.get("range", ""), content.size)
    except Unsatisfiable:
        whole = {"Content-Range": f"bytes */{content.size}"}
        raise HTTPException(
            f"range: the log has {content.size} bytes", status_code=416, headers=whole
        ) from None


@get_of_log("/outline", "Get the positions of lines and markers", 409, 410, 502)
async def get_outline(
    request: HttpRequest, services: Injected, job_id: FromPath[str], attempt: OfAttempt = None
) -> OutlineBody:
    """Return line counts per block and all markers; read the bytes with ranges of `/raw`."""

    async def read() -> OutlineBody:
        log = await find_log(services, job_id)
        content = await find_content(services, log, attempt)
        outline = await services.outlines.of(content)
        return outline_body(content, outline, await content.cursor())

    key = (job_id, attempt)
    return await services.outline_scans.run(request, key, lambda: retry_replaced(read))


@get_of_log("/search", "Search the lines of a log", 409, 410, 502)
async def search_log(  # noqa: PLR0913 - the parameters of the route
    request: HttpRequest,
    services: Injected,
    job_id: FromPath[str],
    q: Query,
    attempt: OfAttempt = None,
    *,
    case: Case = False,
    near: Near = 0,
    from_byte: From = 0,
    from_line: FromLine = 0,
) -> SearchBody:
    """Find a plain text in the visible text of the lines, without escape sequences."""

    async def read() -> SearchBody:
        log = await find_log(services, job_id)
        search = Search(q, case=case, near=max(near - from_line, 0))
        content = await find_content(services, log, attempt)
        async for piece in content.read(from_byte):
            await in_thread(search.feed, piece)
        await in_thread(search.end)
        return SearchBody(
            count=search.count,
            lines=[from_line + line for line in search.lines],
            first=search.first,
            truncated=search.count > len(search.lines),
            next_byte=from_byte + search.line_start,
            next_line=from_line + search.line,
        )

    key = (job_id, attempt, q, case, near, from_byte, from_line)
    return await services.searches.run(request, key, lambda: retry_replaced(read))


ROUTES = [get_raw, get_outline, search_log]
