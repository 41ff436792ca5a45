"""Tells each log's workflow what was stored, at a rate Temporal is comfortable with.

An attempt's first batch and its final part are told at once, in between at most one signal per log
and interval; what is held back is added up and sent when the interval is over, never dropped while
the drain lives. What a drain that dies has not told stays in the database for the sweep to find.
"""

import asyncio
import time

import structlog

from drain.metrics import SIGNAL_FAILURES, SIGNAL_SECONDS, SIGNALS
from logflume.observability import spans
from workflows.client.logs import LogWorkflows
from workflows.types import PARTS_STORED, Batch

log = structlog.get_logger()

MAX_BACKOFF_SECONDS = 5.0


class Signaller:
    """Signals, coalesced for each log and tried until Temporal takes them."""

    def __init__(self, workflows: LogWorkflows, *, interval: float, in_flight: int) -> None:
        self._workflows = workflows
        self._interval = interval
        self._held: dict[int, Batch] = {}
        self._resting: dict[int, asyncio.TimerHandle] = {}  # told less than an interval ago
        self._ready: asyncio.Queue[int] = asyncio.Queue()
        self._queued: set[int] = set()  # what is in it, so that no job is in it twice
        self._idle = asyncio.Event()
        self._idle.set()
        self._sending = 0
        self._senders = [asyncio.create_task(self._send_all()) for _ in range(in_flight)]

    @property
    def pending(self) -> int:
        """Logs that are still to be told of."""
        return len(self._held) + self._sending

    def add(self, job_id: int, batch: Batch) -> None:
        """Take note of what was committed for a job."""
        self._idle.clear()
        self._hold(job_id, batch)
        if batch.begun or batch.final or job_id not in self._resting:
            self._queue(job_id)

    async def close(self, seconds: float) -> int:
        """Send what is held back, for at most `seconds`; returns how many logs were left untold."""
        for job_id in self._held:
            self._queue(job_id)
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            pass
        for sender in self._senders:
            sender.cancel()
        await asyncio.gather(*self._senders, return_exceptions=True)
        return len(self._held)

    async def _send_all(self) -> None:
        backoff = 0.1
        while True:
            job_id = await self._ready.get()
            self._queued.discard(job_id)
            batch = self._held.pop(job_id, None)
            if batch is None:  # it went along with an earlier signal
                continue
            self._sending += 1
            self._rest(job_id)  # what is added meanwhile waits, however long Temporal takes
            began = time.perf_counter()
            try:
                # Not of all: those in between say nothing of the log's life.
                place = spans.of_log(job_id) if batch.begun or batch.final else None
                with spans.span("signal", place):
                    await self._workflows.signal(job_id, PARTS_STORED, [batch])
                SIGNALS.inc()
                SIGNAL_SECONDS.observe(time.perf_counter() - began)
                backoff = 0.1
                self._rest(job_id)
            except Exception as error:  # noqa: BLE001 - whatever it is, the log must be told of
                self._hold(job_id, batch)
                SIGNAL_FAILURES.inc()
                log.warning("signal_failed", job_id=job_id, error=str(error), retry_in=backoff)
                await asyncio.sleep(backoff)
                backoff = min(2 * backoff, MAX_BACKOFF_SECONDS)
                self._queue(job_id)
            except asyncio.CancelledError:
                self._hold(job_id, batch)
                raise
            finally:
                self._sending -= 1
            if not (self._held or self._sending):
                self._idle.set()

    def _queue(self, job_id: int) -> None:
        if job_id not in self._queued:
            self._queued.add(job_id)
            self._ready.put_nowait(job_id)

    def _hold(self, job_id: int, batch: Batch) -> None:
        held = self._held.get(job_id)
        self._held[job_id] = held + batch if held else batch

    def _rest(self, job_id: int) -> None:
        if running := self._resting.get(job_id):
            running.cancel()
        loop = asyncio.get_running_loop()
        self._resting[job_id] = loop.call_later(self._interval, self._rested, job_id)

    def _rested(self, job_id: int) -> None:
        del self._resting[job_id]
        if job_id in self._held:
            self._queue(job_id)
