"""A proxy in front of the real S3 store that alters some responses."""

import asyncio
import io
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

NOT_PASSED_ON = ("Connection", "Content-Length", "Expect", "Keep-Alive", "Transfer-Encoding")
ANY = "any operation"
CHECKSUMS = ("x-amz-checksum-crc32", "x-amz-checksum-crc64nvme", "x-amz-checksum-sha256")


@dataclass
class Answer:
    """A response of the store."""

    status: int
    headers: CIMultiDict[str]
    body: bytes

    def again(self, request: web.Request) -> web.Response:
        if request.method == "HEAD":
            return web.Response(status=self.status, headers=self.headers)
        return web.Response(status=self.status, headers=self.headers, body=self.body)


Forward = Callable[[], Awaitable[Answer]]
Trouble = Callable[[web.Request, Forward], Awaitable[web.StreamResponse]]


def error_response(status: int, code: str, *, done: bool = False) -> Trouble:
    """An S3 error response; with `done` the request is executed all the same."""

    async def answer(request: web.Request, forward: Forward) -> web.StreamResponse:
        if done:
            await forward()
        body = f"<Error><Code>{code}</Code><Message>injected</Message></Error>"
        if request.method == "HEAD":
            return web.Response(status=status)
        return web.Response(status=status, text=body, content_type="application/xml")

    return answer


def broken_connection(*, done: bool) -> Trouble:
    """The connection breaks before a response; with `done` the request was executed."""

    async def answer(request: web.Request, forward: Forward) -> web.StreamResponse:
        if done:
            await forward()
        assert request.transport
        request.transport.abort()
        return web.Response()

    return answer


def false_success(status: int, body: bytes = b"") -> Trouble:
    """A success response to a request that is not executed."""

    async def answer(request: web.Request, forward: Forward) -> web.StreamResponse:
        await request.read()
        etag = {"ETag": '"d41d8cd98f00b204e9800998ecf8427e"'}
        return web.Response(status=status, body=body, headers=etag)

    return answer


async def slow_response(request: web.Request, forward: Forward) -> web.StreamResponse:
    """The whole body, in two pieces with a pause."""
    said = await forward()
    return said.again(request) if not said.body else await _pieces(request, said, breaks=False)


async def truncated_response(request: web.Request, forward: Forward) -> web.StreamResponse:
    """Half of the announced body."""
    return await _pieces(request, await forward(), breaks=True)


async def _pieces(request: web.Request, said: Answer, *, breaks: bool) -> web.StreamResponse:
    response = web.StreamResponse(status=said.status, headers=said.headers)
    response.content_length = len(said.body)
    await response.prepare(request)
    middle = len(said.body) // 2
    await response.write(said.body[:middle])
    await asyncio.sleep(0.1)
    if breaks:
        assert request.transport
        request.transport.close()
    else:
        await response.write(said.body[middle:])
    return response


def flipped_bit(*, checksums: bool) -> Trouble:
    """A body of the same length with one bit flipped, with the original checksums or none."""

    async def answer(request: web.Request, forward: Forward) -> web.StreamResponse:
        said = await forward()
        said.body = bytes([said.body[0] ^ 1]) + said.body[1:]
        if not checksums:
            for name in CHECKSUMS:
                said.headers.pop(name, None)
        return said.again(request)

    return answer


async def altered_request(request: web.Request, forward: Forward) -> web.StreamResponse:
    """The request body is altered before it reaches the store."""
    body = await request.read()
    request._read_bytes = bytes([body[0] ^ 1]) + body[1:]
    return (await forward()).again(request)


class Held:
    """Requests that are executed late: the client's connection breaks, the request stays.

    With `done` a request is also executed at once and answered; releasing it repeats it.
    """

    def __init__(self, *, done: bool = False) -> None:
        self._done = done
        self._forwards: list[Forward] = []

    async def __call__(self, request: web.Request, forward: Forward) -> web.StreamResponse:
        await request.read()
        self._forwards.append(forward)
        if self._done:
            return (await forward()).again(request)
        if request.transport:
            request.transport.abort()
        return web.Response()

    async def release(self) -> list[int]:
        """Execute all of them now, the latest first; returns the status of each response."""
        return [(await forward()).status for forward in reversed(self._forwards)]


@dataclass
class Proxy:
    """Which requests for which keys get which trouble."""

    store: str
    session: aiohttp.ClientSession
    url: str = ""
    troubles: dict[str, tuple[str, Trouble]] = field(default_factory=dict)
    left: dict[str, int] = field(default_factory=dict)
    # Answers all requests: the proxy behaves like another store.
    every: Trouble | None = None

    def trouble(self, key: str, operation: str, trouble: Trouble, times: int) -> None:
        """Apply `trouble` to the next `times` requests of this operation and key."""
        self.troubles[key], self.left[key] = (operation, trouble), times

    def calm(self) -> None:
        self.troubles.clear()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        async def forward() -> Answer:
            return await self._forward(request)

        try:
            return await self._handle(request, forward)
        except aiohttp.ClientError:  # the store is gone
            if request.transport:
                request.transport.abort()
            return web.Response()

    async def _handle(self, request: web.Request, forward: Forward) -> web.StreamResponse:
        if self.every:
            return await self.every(request, forward)
        key = request.path.split("/", 2)[-1]
        operation, trouble = self.troubles.get(key, ("", None))
        if trouble and operation in (ANY, operation_of(request)) and self.left[key] > 0:
            self.left[key] -= 1
            return await trouble(request, forward)
        return (await forward()).again(request)

    async def _forward(self, request: web.Request) -> Answer:
        body = await request.read()
        given = CIMultiDict(request.headers)
        for name in NOT_PASSED_ON:
            given.popall(name, None)
        async with self.session.request(
            request.method,
            URL(self.store + request.raw_path, encoded=True),
            headers=given,
            data=io.BytesIO(body) if body else None,
            skip_auto_headers=("Accept", "Content-Type", "User-Agent"),
        ) as answer:
            headers = CIMultiDict(answer.headers)
            length = headers.get("Content-Length")
            for name in NOT_PASSED_ON:
                headers.popall(name, None)
            if request.method == "HEAD" and length:
                headers["Content-Length"] = length
            return Answer(answer.status, headers, await answer.read())


def operation_of(request: web.Request) -> str:
    """The S3 operation of a request, of those that we use."""
    asked = request.query
    if "partNumber" in asked:
        return "UploadPart"
    if "uploads" in asked:
        return "CreateMultipartUpload"
    if request.method == "POST":
        return "CompleteMultipartUpload"
    names = {"PUT": "PutObject", "GET": "GetObject", "HEAD": "HeadObject"}
    return names.get(request.method, "DeleteObject")


@asynccontextmanager
async def s3_proxy(store: str) -> AsyncIterator[Proxy]:
    """Run the proxy on a free port."""
    app = web.Application(client_max_size=64 * 1024 * 1024)
    async with aiohttp.ClientSession(auto_decompress=False) as session:
        proxy = Proxy(store, session)
        app.router.add_route("*", "/{path:.*}", proxy.handle)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            proxy.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            yield proxy
        finally:
            await runner.cleanup()
