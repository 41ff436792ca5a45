"""The pages for people: a shell of HTML for each and what it loads, without any log's text."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from litestar import MediaType, Request, Response, Router, get
from litestar.connection import ASGIConnection
from litestar.exceptions import NotFoundException
from litestar.params import FromPath

from web.lookup import integer

FOLDER = Path(__file__).parent / "static"
# A log is hostile, so its page runs nothing but its own files and talks to nobody but us; the
# signature of a share link must not leave in a referrer.
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
# Not from the machine's own table, which differs from one to the next.
TYPES = {
    ".css": "text/css",
    ".html": MediaType.HTML,
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}

MayRead = Callable[[ASGIConnection[Any, Any, Any, Any], str], bool]


class File(msgspec.Struct, frozen=True):
    """A file of the pages, held in memory: they are few and small."""

    content: bytes
    media_type: str
    etag: str


def read_files(folder: Path = FOLDER) -> dict[str, File]:
    """Read the files of the pages, by name."""
    found = {}
    for path in folder.iterdir():
        if path.suffix in TYPES:
            content = path.read_bytes()
            etag = f'"{hashlib.sha256(content).hexdigest()[:20]}"'
            found[path.name] = File(content, TYPES[path.suffix], etag)
    return found


def router(may_read: MayRead) -> Router:
    """Make the routes of the pages.

    `may_read`: whether this connection may read the log of this job. Without, the page of a log
    answers 403, with the same shell, which then asks for the token.
    """
    files = read_files()

    @get("/", media_type=MediaType.HTML)
    async def front(request: Request[Any, Any, Any]) -> Response[bytes]:
        """Answer the shell of the front page."""
        return _answer(request, files["front.html"])

    @get("/jobs/{job_id:str}", media_type=MediaType.HTML)
    async def job(request: Request[Any, Any, Any], job_id: FromPath[str]) -> Response[bytes]:
        """Answer the shell of a log's page."""
        integer("job_id", job_id)
        allowed = may_read(request, job_id)
        return _answer(request, files["job.html"], 200 if allowed else 403)

    @get("/static/{name:str}")
    async def static(request: Request[Any, Any, Any], name: FromPath[str]) -> Response[bytes]:
        """Answer a file that the pages load."""
        if name not in files:
            raise NotFoundException(f"no file {name!r}")
        return _answer(request, files[name])

    return Router("/", route_handlers=[front, job, static], include_in_schema=False)


def _answer(request: Request[Any, Any, Any], file: File, status: int = 200) -> Response[bytes]:
    headers = {**HEADERS, "ETag": file.etag}
    if status == 200 and request.headers.get("if-none-match") == file.etag:
        return Response(b"", status_code=304, headers=headers, media_type=file.media_type)
    return Response(file.content, status_code=status, headers=headers, media_type=file.media_type)
