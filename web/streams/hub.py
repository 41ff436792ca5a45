"""All feeds of one process, and the one connection that listens for new parts."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import structlog

from db.connect import Connection
from db.errors import FAILURES
from db.notify import Announced, expire, listen, watched_jobs
from logflume.backoff import Backoff
from logflume.errors import ComponentError
from logflume.settings.servers import DatabaseSettings
from web.streams.feed import Feed, Subscriber
from web.streams.poller import ACQUIRE_SECONDS, BatchedPoller

log = structlog.get_logger()

EXPIRE_SECONDS = 60.0
# How long until a reader at another web counts for the pace of senders.
WATCHED_SECONDS = 2.0
MAX_BACKOFF_SECONDS = 2.0


class Hub:
    """Connects subscribers to feeds; needs `run` as a background task."""

    def __init__(self, pool: asyncpg.Pool, settings: DatabaseSettings) -> None:
        self.pool = pool
        self._settings = settings
        self._poller = BatchedPoller(pool)
        self._feeds: dict[int, Feed] = {}
        # Many streams that begin at once wait for each other here, not in the pool, where all
        # requests would wait for them until they time out.
        self.reading = asyncio.Semaphore(max(settings.connections // 2, 1))
        self._watched: frozenset[int] = frozenset()
        self._closed = False

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection for streams that begin or read history; half of the pool at most."""
        async with self.reading, self.pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
            yield connection

    def subscribe(self, job_id: int) -> tuple[Feed, Subscriber]:
        """Subscribe to the feed of a job's log, which is created if it is not there."""
        feed = self._feeds.get(job_id)
        if feed is None:
            feed = self._feeds[job_id] = Feed(self.pool, self._poller, job_id)
        subscriber = feed.subscribe()
        if self._closed:
            subscriber.close()
        return feed, subscriber

    def unsubscribe(self, job_id: int, feed: Feed, subscriber: Subscriber) -> None:
        """Remove a subscriber, and its feed if that has no other."""
        if feed.unsubscribe(subscriber) and self._feeds.get(job_id) is feed:
            del self._feeds[job_id]

    def is_watched(self, job_id: int) -> bool:
        """Whether the log of a job has live readers, here or, as of a moment ago, elsewhere."""
        return job_id in self._feeds or job_id in self._watched

    def close(self) -> None:
        """Close all subscribers, as the process stops; clients reconnect to another one."""
        self._closed = True
        for feed in self._feeds.values():
            feed.close()

    async def run(self) -> None:
        """Listen for announcements until cancelled; reconnects when the connection is lost."""
        backoff = Backoff(MAX_BACKOFF_SECONDS)
        while True:
            lost = asyncio.Event()
            try:
                connection = await listen(self._settings, self._wake, lost.set)
            except (*FAILURES, ComponentError) as error:
                log.warning("listener_failed", error=str(error) or type(error).__name__)
                await asyncio.sleep(backoff.next())
                continue
            backoff.reset()
            self._wake_all()  # announcements were missed meanwhile
            try:
                await self._follow_marks(lost)
            finally:
                connection.terminate()

    def _wake(self, announced: Announced) -> None:
        if feed := self._feeds.get(announced.job_id):
            feed.wake(announced)

    def _wake_all(self) -> None:
        for feed in self._feeds.values():
            feed.wake(None)

    async def _follow_marks(self, lost: asyncio.Event) -> None:
        """Read the marks of watched logs, and expire them, until the connection is lost."""
        expired_at = -EXPIRE_SECONDS
        while not lost.is_set():
            try:
                async with self.pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
                    if time.monotonic() >= expired_at + EXPIRE_SECONDS:
                        await expire(connection)
                        expired_at = time.monotonic()
                    self._watched = await watched_jobs(connection)
            except FAILURES as error:
                log.warning("watched_logs_failed", error=type(error).__name__)
            try:
                async with asyncio.timeout(WATCHED_SECONDS):
                    await lost.wait()
            except TimeoutError:
                continue
