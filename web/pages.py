"""The pages for people: static HTML and its files; the pages load logs over the API."""

from collections.abc import Callable
from typing import Any

from litestar import MediaType, Request, Response, Router, get
from litestar.connection import ASGIConnection
from litestar.exceptions import NotFoundException, ValidationException
from litestar.params import FromPath

from web.assets import File, read_files
from web.lookup import integer

# A log is hostile: its page runs only its own files and connects only to this server. The referrer
# would leak the signature of a share link.
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src 'self' data:; font-src 'none'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}
FOREVER = "public, max-age=31536000, immutable"

MayRead = Callable[[ASGIConnection[Any, Any, Any, Any], str], bool]


def router(may_read: MayRead) -> Router:
    """Make the routes of the pages.

    `may_read`: whether a connection may read the log of a job. If not, the page is sent with status
    403 and asks for the token.
    """
    files = read_files()

    @get("/", media_type=MediaType.HTML)
    async def front(request: Request[Any, Any, Any]) -> Response[bytes]:
        """Return the front page."""
        return _response(request, files["front.html"])

    @get("/jobs/{job_id:str}", media_type=MediaType.HTML)
    async def job(request: Request[Any, Any, Any], job_id: FromPath[str]) -> Response[bytes]:
        """Return the page of a log."""
        try:
            integer("job_id", job_id)
        except ValidationException:
            if prefers_html(request):  # the page says what is wrong
                return _response(request, files["job.html"], 400)
            raise
        allowed = may_read(request, job_id)
        return _response(request, files["job.html"], 200 if allowed else 403)

    @get("/static/{name:str}")
    async def static(request: Request[Any, Any, Any], name: FromPath[str]) -> Response[bytes]:
        """Return a static file."""
        if name not in files:
            raise NotFoundException(f"no file {name!r}")
        return _response(request, files[name])

    return Router("/", route_handlers=[front, job, static], include_in_schema=False)


async def schema_page(request: Request[Any, Any, Any]) -> Response[bytes] | None:
    """Return the page of the API to a browser; other clients of `/schema` get the document."""
    is_page = request.url.path.rstrip("/") == "/schema" and prefers_html(request)
    return _response(request, read_files()["schema.html"]) if is_page else None


def prefers_html(request: Request[Any, Any, Any]) -> bool:
    """Whether a request comes from a browser that opens a page."""
    return "text/html" in request.headers.get("accept", "")


def _response(request: Request[Any, Any, Any], file: File, status: int = 200) -> Response[bytes]:
    is_compressed = "gzip" in request.headers.get("accept-encoding", "")
    etag = f'"{file.digest}{"-gzip" if is_compressed else ""}"'
    headers = {**HEADERS, "ETag": etag, "Vary": "Accept, Accept-Encoding"}
    if file.immutable:
        headers["Cache-Control"] = FOREVER
    if status == 200 and request.headers.get("if-none-match") == etag:
        return Response(b"", status_code=304, headers=headers, media_type=file.media_type)
    if is_compressed:
        headers["Content-Encoding"] = "gzip"
    content = file.compressed if is_compressed else file.content
    return Response(content, status_code=status, headers=headers, media_type=file.media_type)
