"""All feeds of one process, and the one connection that hears which logs have grown."""

import asyncio

import asyncpg
import structlog

from db.connect import UNREACHABLE
from db.notify import Announced, expire, listen
from logflume.errors import ComponentError
from logflume.settings.groups import DatabaseSettings
from web.streams.feed import Backlog, Feed
from web.streams.poller import Looks

log = structlog.get_logger()

EXPIRE_SECONDS = 60.0
BACKOFF_SECONDS = 1.0


class Hub:
    """Brings readers and feeds together; `run` must be running."""

    def __init__(self, pool: asyncpg.Pool, settings: DatabaseSettings) -> None:
        self.pool = pool
        self._settings = settings
        self._looks = Looks(pool)
        self._feeds: dict[int, Feed] = {}
        self._closed = False

    def join(self, job_id: int) -> tuple[Feed, Backlog]:
        """Take a place among the readers of a log."""
        feed = self._feeds.get(job_id)
        if feed is None:
            feed = self._feeds[job_id] = Feed(self.pool, self._looks, job_id)
        backlog = feed.join()
        if self._closed:
            backlog.close()
        return feed, backlog

    def leave(self, job_id: int, feed: Feed, backlog: Backlog) -> None:
        """Give a place up."""
        if feed.leave(backlog) and self._feeds.get(job_id) is feed:
            del self._feeds[job_id]

    def close(self) -> None:
        """Send every reader away, for the process ends; they come back to another."""
        self._closed = True
        for feed in self._feeds.values():
            feed.close()

    async def run(self) -> None:
        """Hear announcements until cancelled; a connection that is lost is made again."""
        while True:
            lost = asyncio.Event()
            try:
                connection = await listen(self._settings, self._heard, lost.set)
            except (*UNREACHABLE, asyncpg.PostgresError, ComponentError) as error:
                log.warning("listener_failed", error=str(error) or type(error).__name__)
                await asyncio.sleep(BACKOFF_SECONDS)
                continue
            self._wake_all()  # what was announced meanwhile was not heard
            try:
                await self._expire_until(lost)
            finally:
                connection.terminate()

    def _heard(self, announced: Announced) -> None:
        if feed := self._feeds.get(announced.job_id):
            feed.wake(announced)

    def _wake_all(self) -> None:
        for feed in self._feeds.values():
            feed.wake(None)

    async def _expire_until(self, lost: asyncio.Event) -> None:
        while not lost.is_set():
            try:
                async with self.pool.acquire(timeout=BACKOFF_SECONDS) as connection:
                    await expire(connection)
            except (*UNREACHABLE, asyncpg.PostgresError) as error:
                log.warning("expire_failed", error=type(error).__name__)
            try:
                async with asyncio.timeout(EXPIRE_SECONDS):
                    await lost.wait()
            except TimeoutError:
                continue
