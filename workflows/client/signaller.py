"""Signals logs' workflows in the background: retries until Temporal accepts, never blocks a caller.

Signals of parts are coalesced: the first batch of an attempt and its final part are sent at once,
in between at most one signal per log and interval. Nothing is dropped while the process lives; what
a crash loses is in the database, where the sweep finds it.
"""

import asyncio
import time
from collections.abc import Callable

import structlog

from logflume.backoff import Backoff
from logflume.observability import spans
from logflume.tasks import cancel
from workflows.client.logs import LogWorkflows
from workflows.lifecycle_types import PartsStored

log = structlog.get_logger()

# A log, and what to signal: the sum of its stored parts, or (None) that its content was replaced.
Signal = PartsStored | None
Key = tuple[int, bool]


class Signaller:
    """Sends at most `in_flight` signals at once, retried with at most `max_backoff` seconds.

    `interval`: seconds between signals of parts of one log. `timeout`: seconds for one try.
    `on_sent` gets the seconds a signal took, `on_failed` is called for each failed try.
    """

    def __init__(  # noqa: PLR0913
        self,
        workflows: LogWorkflows,
        *,
        in_flight: int,
        max_backoff: float,
        interval: float = 0,
        timeout: float | None = None,
        on_sent: Callable[[float], None] = lambda _: None,
        on_failed: Callable[[], None] = lambda: None,
    ) -> None:
        self._workflows = workflows
        self._interval = interval
        self._timeout = timeout
        self._max_backoff = max_backoff
        self._on_sent = on_sent
        self._on_failed = on_failed
        self._waiting: dict[Key, Signal] = {}
        self._paused: dict[Key, asyncio.TimerHandle] = {}  # signalled less than an interval ago
        self._ready: asyncio.Queue[Key] = asyncio.Queue()
        self._queued: set[Key] = set()  # the contents of `_ready`, so that no log is in it twice
        self._sending = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._senders = [asyncio.create_task(self._send_all()) for _ in range(in_flight)]

    @property
    def pending(self) -> int:
        """How many signals are waiting or being sent."""
        return len(self._waiting) + self._sending

    def parts_stored(self, job_id: int, stored: PartsStored) -> None:
        """Signal parts that were committed, coalesced with those that are waiting."""
        self._add((job_id, False), stored, is_urgent=stored.is_urgent)

    def content_replaced(self, job_id: int) -> None:
        """Signal that content was written as a whole."""
        self._add((job_id, True), None, is_urgent=True)

    async def close(self, seconds: float) -> int:
        """Send what is waiting, for at most `seconds`; returns how many signals were not sent."""
        for key in self._waiting:
            self._queue(key)
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            pass
        await cancel(self._senders)
        if unsent := len(self._waiting):
            log.warning("signals_unsent", count=unsent)
        return len(self._waiting)

    async def _send_all(self) -> None:
        backoff = Backoff(self._max_backoff)
        while True:
            key = await self._ready.get()
            self._queued.discard(key)
            if key not in self._waiting:  # coalesced with an earlier signal
                continue
            signal = self._waiting.pop(key)
            self._sending += 1
            self._pause(key)  # signals added meanwhile wait, however long Temporal takes
            try:
                await self._send(key[0], signal)
                backoff.reset()
                self._pause(key)
            except Exception as error:  # noqa: BLE001 - whatever failed, the signal must be sent
                self._wait(key, signal)
                self._on_failed()
                delay = backoff.next()
                log.warning("signal_failed", job_id=key[0], error=str(error), retry_in=delay)
                await asyncio.sleep(delay)
                self._queue(key)
            except asyncio.CancelledError:
                self._wait(key, signal)
                raise
            finally:
                self._sending -= 1
            if not (self._waiting or self._sending):
                self._idle.set()

    async def _send(self, job_id: int, signal: Signal) -> None:
        started = time.perf_counter()
        if signal is None:
            await self._workflows.content_replaced(job_id, self._timeout)
        else:
            # Signals in between say nothing about the log's lifecycle: no span.
            context = spans.of_log(job_id) if signal.is_urgent else None
            with spans.span("signal", context):
                await self._workflows.parts_stored(job_id, signal, self._timeout)
        self._on_sent(time.perf_counter() - started)

    def _add(self, key: Key, signal: Signal, *, is_urgent: bool) -> None:
        self._idle.clear()
        self._wait(key, signal)
        if is_urgent or key not in self._paused:
            self._queue(key)

    def _queue(self, key: Key) -> None:
        if key not in self._queued:
            self._queued.add(key)
            self._ready.put_nowait(key)

    def _wait(self, key: Key, signal: Signal) -> None:
        waiting = self._waiting.get(key)
        self._waiting[key] = waiting + signal if waiting and signal else signal

    def _pause(self, key: Key) -> None:
        if timer := self._paused.get(key):
            timer.cancel()
        loop = asyncio.get_running_loop()
        self._paused[key] = loop.call_later(self._interval, self._resume, key)

    def _resume(self, key: Key) -> None:
        del self._paused[key]
        if key in self._waiting:
            self._queue(key)
