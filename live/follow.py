"""Following one log for one reader: history first, then what its feed finds, without a seam.

The reader takes its place at the feed before it reads the history, so that nothing falls between
both; what it gets twice, its cursor knows.
"""

from collections.abc import AsyncGenerator, AsyncIterator
from enum import Enum
from typing import NamedTuple

from db.follow import Look, look
from domain import StoredPart
from live.cursor import Cursor
from live.feed import ACQUIRE_SECONDS, Backlog, News, passed_parts
from live.hub import Hub

HEARTBEAT_SECONDS = 15.0


class Sign(Enum):
    """What a reader is told beside parts."""

    HEARTBEAT = "heartbeat"
    """Nothing came, all is well."""
    RESET = "reset"
    """What was told so far is no longer the log: begin again."""
    FINAL = "final"
    """The log has ended."""
    RECONNECT = "reconnect"
    """Come back with the last cursor: the reader is too slow, or the process ends."""


class Told(NamedTuple):
    """A part; `in_order`: it follows what was told before, else it belongs somewhere above."""

    part: StoredPart
    in_order: bool


class Follower:
    """Follows a log from a cursor on (None: from its beginning); `cursor` is where it is."""

    def __init__(self, hub: Hub, job_id: int, cursor: Cursor | None) -> None:
        self._hub = hub
        self._job_id = job_id
        self._resumes = cursor is not None
        self._aggregated = False
        self.cursor = cursor or Cursor(0, 0)

    async def follow(self) -> AsyncGenerator[Told | Sign]:
        """Tell of the log until it ends or the reader must come back."""
        feed, backlog = self._hub.join(self._job_id)
        try:
            async for told in self._history():
                yield told
            if self.cursor.ended or self._aggregated:
                yield Sign.FINAL
                return
            feed.start(self.cursor)
            async for told in self._live(backlog):
                yield told
        finally:
            self._hub.leave(self._job_id, feed, backlog)

    async def _live(self, backlog: Backlog) -> AsyncIterator[Told | Sign]:
        while True:
            news = await backlog.get(HEARTBEAT_SECONDS)
            if backlog.closed:
                yield Sign.RECONNECT
                return
            if news is None:
                yield Sign.HEARTBEAT
                continue
            async for told in self._tell(news):
                yield told
            if self.cursor.ended or news.aggregated or self._aggregated:
                yield Sign.FINAL
                return

    async def _tell(self, news: News) -> AsyncIterator[Told | Sign]:
        if news.reset:
            async for told in self._history():
                yield told
        for part in news.parts:
            if (in_order := self.cursor.take(part)) is not None:
                yield Told(part, in_order)

    async def _history(self) -> AsyncIterator[Told | Sign]:
        """Tell of all that is there, a page at a time; no connection is held meanwhile."""
        while True:
            found, passed = await self._look()
            self._aggregated = found.aggregated and not found.more
            if not self.cursor.follows(found.generation, found.attempt_id):
                is_news = not self.cursor.is_fresh
                self.cursor = Cursor(found.generation, found.attempt_id)
                if is_news:
                    yield Sign.RESET
                continue
            for part in (*passed, *found.parts):
                if (in_order := self.cursor.take(part)) is not None:
                    yield Told(part, in_order)
            if not found.more:
                return

    async def _look(self) -> tuple[Look, list[StoredPart]]:
        async with self._hub.pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
            found = await look(connection, self._job_id, self.cursor.next, self.cursor.last_id)
            if found is None:
                raise ConnectionError("the log is gone")
            passed: list[StoredPart] = []
            if self._resumes:
                passed = await passed_parts(connection, found, self.cursor, 0)
                self._resumes = False
        return found, passed
