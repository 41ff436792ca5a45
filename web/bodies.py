"""Bounds the memory that the bodies of all requests hold together."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, cast

from litestar.exceptions import HTTPException
from litestar.handlers import HTTPRouteHandler
from litestar.types import ASGIApp, Receive, Scope, Send

WAIT_SECONDS = 30.0


class Bodies:
    """Lets bodies of up to `2 * max_bytes` in, half of that from one address; others wait."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._held: Counter[str] = Counter()
        self._released = asyncio.Condition()

    def middleware(self, app: ASGIApp) -> ASGIApp:
        """Reserve memory before the app reads a body, until it has responded."""

        async def bounded(scope: Scope, receive: Receive, send: Send) -> None:
            size = 0 if scope.get("method") in ("GET", "HEAD", "OPTIONS") else _size(scope)
            if not size:
                await app(scope, receive, send)
                return
            async with AsyncExitStack() as stack:
                is_reserved = False

                async def receive_reserved() -> Any:
                    nonlocal is_reserved
                    if not is_reserved:
                        is_reserved = True
                        await stack.enter_async_context(self._reserved(_address(scope), size))
                    return await receive()

                await app(scope, receive_reserved, send)

        return bounded

    @asynccontextmanager
    async def _reserved(self, address: str, size: int) -> AsyncIterator[None]:
        def fits() -> bool:
            of_address, total = self._held[address] + size, self._held.total() + size
            return of_address <= self._max_bytes and total <= 2 * self._max_bytes

        async with self._released:
            try:
                async with asyncio.timeout(WAIT_SECONDS):
                    await self._released.wait_for(fits)
            except TimeoutError:
                text = "too many large bodies at once; retry"
                raise HTTPException(text, status_code=503, headers={"Retry-After": "5"}) from None
            self._held[address] += size
        try:
            yield
        finally:
            self._held[address] -= size
            self._held += Counter()  # forget addresses that hold nothing
            async with self._released:
                self._released.notify_all()


def _size(scope: Scope) -> int:
    """The announced size of the body, or the largest that the route accepts."""
    headers = dict(scope["headers"])
    length = headers.get(b"content-length", b"0")
    limit = cast("HTTPRouteHandler", scope["route_handler"]).resolve_request_max_body_size() or 0
    if b"transfer-encoding" in headers:
        return limit
    return min(int(length), limit) if length.isdigit() else 0


def _address(scope: Scope) -> str:
    client = scope.get("client")
    return client[0] if client else ""
