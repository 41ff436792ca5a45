"""Scans of whole logs, for search and outline: bounded, shared and off the event loop."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar
from weakref import WeakValueDictionary

from litestar import Request
from litestar.exceptions import HTTPException

T = TypeVar("T")
P = ParamSpec("P")

RUNNING = 4
SCANS = 20
SECONDS = 60.0
# Parts of these that one share link and one address can have, so that others can scan too.
LINK_SHARE = 1 / 4
ADDRESS_SHARE = 3 / 4
RETRY = {"Retry-After": "2"}
# One thread, so that the event loop competes with one only.
_THREAD = ThreadPoolExecutor(1, "scan")


async def in_thread(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run one piece of a scan in the thread that all scans share."""
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(_THREAD, lambda: work(*args, **kwargs))


@dataclass
class _Scan:
    callers: dict[str, float]  # their shares, by link and address
    task: asyncio.Task[Any]
    readers: int = 0


class Scans:
    """Runs each scan once for all readers that wait for it; it stops when they all left."""

    def __init__(self) -> None:
        self._scans: dict[Hashable, _Scan] = {}
        self._slots = asyncio.Semaphore(RUNNING)
        self._slots_of: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    async def run(
        self, request: Request[Any, Any, Any], key: Hashable, work: Callable[[], Awaitable[T]]
    ) -> T:
        """Return the result of `work`; `key` says what it computes.

        Raises:
            HTTPException: 503, too many scans are waiting, or it took too long; 499, the reader
                left.
        """
        scan = self._scans.get(key)
        if scan is None:
            callers = _callers(request)
            self._check(callers)
            scan = self._scans[key] = _Scan(callers, asyncio.create_task(self._scan(callers, work)))
            scan.task.add_done_callback(lambda _: self._remove(key, scan))
        scan.readers += 1
        leaving = asyncio.create_task(_left(request))
        try:
            await asyncio.wait((scan.task, leaving), return_when=asyncio.FIRST_COMPLETED)
            if scan.task.done():
                return scan.task.result()  # type: ignore[no-any-return]
            raise HTTPException("the reader left", status_code=499)
        finally:
            leaving.cancel()
            scan.readers -= 1
            if not scan.readers and not scan.task.done():
                scan.task.cancel()
                self._remove(key, scan)

    def _check(self, callers: dict[str, float]) -> None:
        counts = dict.fromkeys(callers, 0)
        for scan in self._scans.values():
            for name in counts.keys() & scan.callers.keys():
                counts[name] += 1
        is_full = any(counts[name] >= SCANS * share for name, share in callers.items())
        if is_full or len(self._scans) >= SCANS:
            text = "too many searches at once; retry"
            raise HTTPException(text, status_code=503, headers=RETRY)

    async def _scan(self, callers: dict[str, float], work: Callable[[], Awaitable[T]]) -> T:
        async with AsyncExitStack() as stack:
            for name, share in callers.items():
                slots = self._slots_of.get(name) or asyncio.Semaphore(int(RUNNING * share))
                await stack.enter_async_context(self._slots_of.setdefault(name, slots))
            await stack.enter_async_context(self._slots)
            try:
                async with asyncio.timeout(SECONDS) as limit:
                    return await work()
            except TimeoutError:
                if not limit.expired():
                    raise
                text = f"the log is too large to be searched in {SECONDS:.0f} s; download it"
                raise HTTPException(text, status_code=503) from None

    def _remove(self, key: Hashable, scan: _Scan) -> None:
        if self._scans.get(key) is scan:
            del self._scans[key]
        if scan.task.done() and not scan.task.cancelled():
            scan.task.exception()  # the readers got it, if there are any


def _callers(request: Request[Any, Any, Any]) -> dict[str, float]:
    address = request.client.host if request.client else ""
    callers = {f"address {address}": ADDRESS_SHARE}
    if link := request.query_params.get("share"):
        callers = {f"link {link}": LINK_SHARE} | callers
    return callers


async def _left(request: Request[Any, Any, Any]) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
