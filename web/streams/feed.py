"""A feed polls one watched log on behalf of all its subscribers in this process."""

import asyncio
from collections import deque
from collections.abc import Iterable
from contextlib import suppress

import asyncpg
import structlog

from db.connect import Connection
from db.errors import FAILURES
from db.notify import Announced
from db.tail import Horizon, Since, TailPage, late
from logflume.backoff import Backoff
from logflume.domain import LAST, StoredPart
from web.streams.cursor import Cursor
from web.streams.poller import ACQUIRE_SECONDS, MARK_SECONDS, BatchedPoller

log = structlog.get_logger()

# How long to wait for a missing number before showing the parts after it.
GAP_SECONDS = 1.0
# A NOTIFY can be missed: by transactions that began before the log was marked as watched, and while
# the listener is disconnected. Polls cover both, with intervals that double from first to last.
FIRST_POLL_SECONDS = 1.0
POLL_SECONDS = 15.0
# One timer for all subscribers of a log: a timer each would cost a fifth of sending an event.
HEARTBEAT_SECONDS = 15.0
# Limits of the backlog of one subscriber, in bytes of content and in updates.
BACKLOG_BYTES = 4 * 1024 * 1024
BACKLOG_UPDATES = 1000


class Update:
    """New parts of a log, or the news that the log was replaced (`reset`).

    `start`: the number that the feed polled from. `aggregated`: no more parts are expected.
    """

    __slots__ = ("aggregated", "bytes", "parts", "reset", "start")

    def __init__(
        self,
        start: int,
        parts: Iterable[StoredPart] = (),
        *,
        aggregated: bool = False,
        reset: bool = False,
    ) -> None:
        self.start = start
        self.parts = [*parts]
        self.aggregated = aggregated
        self.reset = reset
        self.bytes = sum(len(part.content) for part in self.parts)


class Subscriber:
    """The bounded backlog of one open stream."""

    def __init__(self) -> None:
        self._updates: deque[Update] = deque()
        self._bytes = 0
        self._ready = asyncio.Event()
        self.closed = False
        """The stream is too slow or the process stops: the client must reconnect."""

    def put(self, update: Update) -> None:
        """Add an update; closes the subscriber if its backlog is over the limit."""
        self._updates.append(update)
        self._bytes += update.bytes
        if self._bytes > BACKLOG_BYTES or len(self._updates) > BACKLOG_UPDATES:
            self.close()
        self._ready.set()

    def close(self) -> None:
        """End the stream; the backlog is dropped, as the client resumes from its cursor."""
        self.closed = True
        self._updates.clear()
        self._ready.set()

    def heartbeat(self) -> None:
        """Wake `get`, with None if the backlog is empty."""
        self._ready.set()

    async def get(self) -> Update | None:
        """Wait for the next update; None for a heartbeat or after `close`."""
        await self._ready.wait()
        if self.closed:
            return None
        if not self._updates:
            self._ready.clear()
            return None
        update = self._updates.popleft()
        self._bytes -= update.bytes
        if not self._updates:
            self._ready.clear()
        return update


class Feed:
    """Follows one log, from where its first subscriber caught up, while it has subscribers."""

    def __init__(self, pool: asyncpg.Pool, poller: BatchedPoller, job_id: int) -> None:
        self._pool = pool
        self._poller = poller
        self._job_id = job_id
        self._subscribers: set[Subscriber] = set()
        self._wake = asyncio.Event()
        self._announced: list[Announced | None] = []
        self._snapshot = Horizon(0, frozenset())
        self._polled_from = LAST
        self._marked_at = -MARK_SECONDS
        self._poll_seconds = FIRST_POLL_SECONDS
        self._gap_since: float | None = None
        self._cursor = Cursor(0, 0)
        self._task: asyncio.Task[None] | None = None
        self._send_heartbeats()

    def _send_heartbeats(self) -> None:
        for subscriber in self._subscribers:
            subscriber.heartbeat()
        loop = asyncio.get_running_loop()
        self._heartbeat_timer = loop.call_later(HEARTBEAT_SECONDS, self._send_heartbeats)

    def subscribe(self) -> Subscriber:
        """Add a subscriber, which receives all updates from now on."""
        subscriber = Subscriber()
        self._subscribers.add(subscriber)
        return subscriber

    def unsubscribe(self, subscriber: Subscriber) -> bool:
        """Remove a subscriber; returns whether it was the last one, which closes the feed."""
        self._subscribers.discard(subscriber)
        if not self._subscribers:
            self._heartbeat_timer.cancel()
            self.close()
        return not self._subscribers

    @property
    def is_started(self) -> bool:
        """Whether it polls."""
        return self._task is not None

    def start(self, cursor: Cursor) -> None:
        """Start to poll from this cursor; does nothing if the feed is started."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(cursor.copy()))
            self._task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Close the subscribers of a feed that crashed: they would wait forever."""
        if not task.cancelled() and (error := task.exception()):
            log.error("feed_crashed", job_id=self._job_id, exc_info=error)
            self.close()

    def wake(self, announced: Announced | None) -> None:
        """Poll soon, because of an announcement; None stands for any that was missed."""
        self._announced.append(announced)
        self._wake.set()

    def close(self) -> None:
        """Stop polling and close all subscribers."""
        if self._task:
            self._task.cancel()
        for subscriber in self._subscribers:
            subscriber.close()

    async def _run(self, cursor: Cursor) -> None:
        self._cursor = cursor
        backoff = Backoff(POLL_SECONDS, FIRST_POLL_SECONDS)
        while True:
            try:
                seconds = await self._step()
            except FAILURES as error:
                log.warning("poll_failed", job_id=self._job_id, error=type(error).__name__)
                self._announced.append(None)
                await asyncio.sleep(backoff.next())
                continue
            backoff.reset()
            await self._sleep(seconds)

    async def _step(self) -> float:
        """Poll once and publish what is new; returns the longest time to wait for the next poll."""
        cursor = self._cursor
        page, late_parts = await self._poll(cursor)
        if not cursor.is_in(page.generation, page.attempt_id):
            self._cursor = Cursor(page.generation, page.attempt_id)
            if not cursor.is_fresh:
                self._publish(Update(0, reset=True))
            return 0
        ready = page.parts if page.aggregated else self._ready(cursor, page.parts)
        start = cursor.next
        new = [part for part in (*late_parts, *ready) if cursor.take(part) is not None]
        if new or page.aggregated:
            self._publish(Update(start, new, aggregated=page.aggregated and not page.more))
        if len(ready) < len(page.parts):
            return GAP_SECONDS
        seconds = self._poll_seconds
        self._poll_seconds = min(2 * seconds, POLL_SECONDS)
        return 0 if page.more or late_parts else seconds

    def _ready(self, cursor: Cursor, parts: list[StoredPart]) -> list[StoredPart]:
        """The parts up to the first gap; after the wait for the gap, those behind it too."""
        ready = [*cursor.contiguous(parts)]
        now = asyncio.get_running_loop().time()
        if len(ready) == len(parts):
            self._gap_since = None
        elif self._gap_since is None:
            self._gap_since = now
        elif now - self._gap_since >= GAP_SECONDS:
            self._gap_since = None
            ready = [*cursor.reachable(parts)]
        return ready

    async def _poll(self, cursor: Cursor) -> tuple[TailPage, list[StoredPart]]:
        """Read the next page of parts, and the late ones below the cursor."""
        announced, self._announced = self._announced, []
        lowest = min((one.lowest if one else 0 for one in announced), default=LAST)
        now = asyncio.get_running_loop().time()
        mark = now - self._marked_at > MARK_SECONDS / 2
        page = await self._poller.poll(Since(self._job_id, cursor.next, cursor.lasts), mark=mark)
        if mark:
            self._marked_at = now
        if page is None:
            raise ConnectionError("the log was deleted")
        self._snapshot, self._polled_from = page.horizon, cursor.next
        late_parts: list[StoredPart] = []
        if cursor.gaps or lowest < cursor.next:
            async with self._pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
                late_parts = await read_late(connection, page, cursor, lowest)
        if late_parts:
            self._announced += announced  # there may be another page of late parts
        return page, late_parts

    def _publish(self, update: Update) -> None:
        for subscriber in self._subscribers:
            subscriber.put(update)

    async def _sleep(self, seconds: float) -> None:
        """Wait until a poll is needed, at most this long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not self._is_poll_needed():
                    self._wake.clear()
                    await self._wake.wait()

    def _is_poll_needed(self) -> bool:
        """Whether an announcement is about parts that the last poll cannot have returned.

        A batch commits as a whole: a poll often sees it before its announcement arrives.
        """
        self._announced = [
            one
            for one in self._announced
            if one is None
            or one.lowest < self._polled_from
            or not self._snapshot.saw(one.transaction)
        ]
        return bool(self._announced)


async def read_late(
    connection: Connection, page: TailPage, cursor: Cursor, lowest: int
) -> list[StoredPart]:
    """Read a page of parts from `lowest` to below the cursor: in its gaps, or with new bytes."""
    if not cursor.is_in(page.generation, page.attempt_id):
        return []
    return await late(connection, page, cursor.gaps, (max(lowest, 0), cursor.next - 1), cursor.top)
