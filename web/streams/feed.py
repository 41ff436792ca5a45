"""One feed for each watched log: it looks once for all of the log's readers in this process."""

import asyncio
from collections import deque
from collections.abc import Iterable
from contextlib import suppress

import asyncpg
import structlog

from db.connect import UNREACHABLE, Connection
from db.notify import Announced
from db.tail import Horizon, Look, Since, late
from logflume.domain import LAST, StoredPart
from web.streams.cursor import Cursor
from web.streams.poller import ACQUIRE_SECONDS, MARK_SECONDS, Looks

log = structlog.get_logger()

# How long a missing number is waited for before what comes after it is shown.
GAP_SECONDS = 1.0
# NOTIFY may be missed, while a mark is made (by batches that are under way then, for as long as
# they take) and while the listener is away. These looks come ever more seldom.
FIRST_POLL_SECONDS = 1.0
POLL_SECONDS = 15.0
# One timer for all readers of a log: each of its own is a fifth of what an event costs.
HEARTBEAT_SECONDS = 15.0
# What a reader who does not read may have waiting, in bytes of content and in batches.
BACKLOG_BYTES = 4 * 1024 * 1024
BACKLOG_BATCHES = 1000


class News:
    """What a feed found for its readers: parts, or that the log is another one (`reset`).

    `start`: the number the feed looked from. `aggregated`: no more is expected of the log.
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


class Backlog:
    """What waits for one reader; bounded."""

    def __init__(self) -> None:
        self._news: deque[News] = deque()
        self._bytes = 0
        self._some = asyncio.Event()
        self.closed = False
        """The reader is too slow or the process ends: it must come back."""

    def put(self, news: News) -> None:
        """Add what was found, or give the reader up."""
        self._news.append(news)
        self._bytes += news.bytes
        if self._bytes > BACKLOG_BYTES or len(self._news) > BACKLOG_BATCHES:
            self.close()
        self._some.set()

    def close(self) -> None:
        """Send the reader away; what waits is dropped, for it will ask again."""
        self.closed = True
        self._news.clear()
        self._some.set()

    def beat(self) -> None:
        """Let the reader know that all is well."""
        self._some.set()

    async def get(self) -> News | None:
        """Take what was found next; None for a heartbeat, or where the backlog is closed."""
        await self._some.wait()
        if self.closed:
            return None
        if not self._news:
            self._some.clear()
            return None
        news = self._news.popleft()
        self._bytes -= news.bytes
        if not self._news:
            self._some.clear()
        return news


class Feed:
    """Follows one log from where its first reader had caught up, as long as it has readers."""

    def __init__(self, pool: asyncpg.Pool, looks: Looks, job_id: int) -> None:
        self._pool = pool
        self._looks = looks
        self._job_id = job_id
        self._readers: set[Backlog] = set()
        self._wake = asyncio.Event()
        self._heard: list[Announced | None] = []
        self._horizon = Horizon(0, frozenset())
        self._looked_from = LAST
        self._marked_at = -MARK_SECONDS
        self._poll_seconds = FIRST_POLL_SECONDS
        self._gap_since: float | None = None
        self._cursor = Cursor(0, 0)
        self._task: asyncio.Task[None] | None = None
        self._beat()

    def _beat(self) -> None:
        for reader in self._readers:
            reader.beat()
        loop = asyncio.get_running_loop()
        self._beating = loop.call_later(HEARTBEAT_SECONDS, self._beat)

    def join(self) -> Backlog:
        """Take a place among the readers; what is found from now on waits there."""
        backlog = Backlog()
        self._readers.add(backlog)
        return backlog

    def leave(self, backlog: Backlog) -> bool:
        """Give a place up; tells whether it was the last, which ends the feed."""
        self._readers.discard(backlog)
        if not self._readers:
            self._beating.cancel()
            self.close()
        return not self._readers

    @property
    def is_started(self) -> bool:
        """Whether it looks already."""
        return self._task is not None

    def start(self, cursor: Cursor) -> None:
        """Begin to look from this place on, if that has not begun."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(cursor.copy()))
            self._task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Whatever ended the feed, its readers must not wait for it in vain."""
        if not task.cancelled() and (error := task.exception()):
            log.error("feed_broke", job_id=self._job_id, exc_info=error)
            self.close()

    def wake(self, heard: Announced | None) -> None:
        """Look: this was announced; None for anything that may have been."""
        self._heard.append(heard)
        self._wake.set()

    def close(self) -> None:
        """Stop looking, and send all readers away."""
        if self._task:
            self._task.cancel()
        for reader in self._readers:
            reader.close()

    async def _run(self, cursor: Cursor) -> None:
        self._cursor = cursor
        while True:
            try:
                seconds = await self._step()
            except (*UNREACHABLE, asyncpg.PostgresError) as error:
                log.warning("feed_failed", job_id=self._job_id, error=type(error).__name__)
                self._heard.append(None)
                await asyncio.sleep(FIRST_POLL_SECONDS)
                continue
            await self._sleep(seconds)

    async def _step(self) -> float:
        """Look once and tell what is new; returns how long to wait for a call to look again."""
        cursor = self._cursor
        found, passed = await self._look(cursor)
        if not cursor.follows(found.generation, found.attempt_id):
            self._cursor = Cursor(found.generation, found.attempt_id)
            if not cursor.is_fresh:
                self._publish(News(0, reset=True))
            return 0
        ready = found.parts if found.aggregated else self._ready(cursor, found.parts)
        start = cursor.next
        taken = [part for part in (*passed, *ready) if cursor.take(part) is not None]
        if taken or found.aggregated:
            self._publish(News(start, taken, aggregated=found.aggregated and not found.more))
        if len(ready) < len(found.parts):
            return GAP_SECONDS
        seconds = self._poll_seconds
        self._poll_seconds = min(2 * seconds, POLL_SECONDS)
        return 0 if found.more or passed else seconds

    def _ready(self, cursor: Cursor, parts: list[StoredPart]) -> list[StoredPart]:
        """The parts up to a gap, or those behind it too once it was waited for."""
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

    async def _look(self, cursor: Cursor) -> tuple[Look, list[StoredPart]]:
        """Look for what is new to the cursor, and for what it passed over or was replaced."""
        heard, self._heard = self._heard, []
        lowest = min((one.lowest if one else 0 for one in heard), default=LAST)
        now = asyncio.get_running_loop().time()
        is_due = now - self._marked_at > MARK_SECONDS / 2
        since = Since(self._job_id, cursor.next, cursor.lasts)
        found = await self._looks.look(since, mark=is_due)
        if is_due:
            self._marked_at = now
        if found is None:
            raise ConnectionError("the log is gone")
        self._horizon, self._looked_from = found.horizon, cursor.next
        passed: list[StoredPart] = []
        if cursor.gaps or lowest < cursor.next:
            async with self._pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
                passed = await passed_parts(connection, found, cursor, lowest)
        if passed:
            self._heard += heard  # there may be another page of them
        return found, passed

    def _publish(self, news: News) -> None:
        for reader in self._readers:
            reader.put(news)

    async def _sleep(self, seconds: float) -> None:
        """Wait for an announcement of what the last look did not see, at most so long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not self._is_called():
                    self._wake.clear()
                    await self._wake.wait()

    def _is_called(self) -> bool:
        # A batch commits as a whole: a look often sees it before its announcement is heard.
        self._heard = [
            one
            for one in self._heard
            if one is None
            or one.lowest < self._looked_from
            or not self._horizon.saw(one.transaction)
        ]
        return bool(self._heard)


async def passed_parts(
    connection: Connection, found: Look, cursor: Cursor, lowest: int
) -> list[StoredPart]:
    """Read parts below the cursor that it has not seen, a page: stragglers, other bytes by now."""
    if not cursor.follows(found.generation, found.attempt_id):
        return []
    return await late(connection, found, cursor.gaps, (max(lowest, 0), cursor.next - 1), cursor.top)
