"""Following one log for one reader: history first, then what its feed finds, without a seam.

The reader takes its place at the feed before it reads the history, so that nothing falls between
both; what it gets twice, its cursor knows. The feed looks from no further than where that history
ends.
"""

from collections.abc import AsyncGenerator, AsyncIterator
from enum import Enum
from typing import NamedTuple

from db import reading
from db.connect import Connection
from db.reading import Snapshot
from db.tail import Look, Since, look
from logflume.domain import LAST, StoredPart
from web.streams.cursor import Cursor
from web.streams.feed import Backlog, News, passed_parts
from web.streams.hub import Hub
from web.streams.poller import ACQUIRE_SECONDS


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
            if self._resumes and not feed.is_started:
                # What a reader brought with it is not believed for the others.
                feed.start(await self._end())
            async for told in self._history():
                yield told
            if self.cursor.ended or self._aggregated:
                yield Sign.FINAL
                return
            if not feed.is_started:
                feed.start(self.cursor)
            async for told in self._live(backlog):
                yield told
        finally:
            self._hub.leave(self._job_id, feed, backlog)

    async def _end(self) -> Cursor:
        """The place of a reader who has seen all that there is."""
        async with self._hub.pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
            log = await reading.find(connection, self._job_id)
            return await cursor_after(connection, await reading.snapshot(connection, log))

    async def _live(self, backlog: Backlog) -> AsyncIterator[Told | Sign]:
        while True:
            news = await backlog.get()
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
        # The feed may have begun further on than this reader had come: it looks for itself.
        if news.reset or news.start > max(self.cursor.next, 0):
            async for told in self._history():
                yield told
        for part in news.parts:
            if (in_order := self.cursor.take(part)) is not None:
                yield Told(part, in_order)

    async def _history(self) -> AsyncIterator[Told | Sign]:
        """Tell of all that is there, a page at a time; no connection is held meanwhile."""
        while True:
            found = await self._look()
            self._aggregated = found.aggregated and not found.more
            if not self._is_place_in(found):
                is_news = not self.cursor.is_fresh
                self.cursor, self._resumes = Cursor(found.generation, found.attempt_id), False
                if is_news:
                    yield Sign.RESET
                continue
            async for told in self._passed(found):
                yield told
            parts = found.parts if found.aggregated else [*self.cursor.reachable(found.parts)]
            for part in parts:
                if (in_order := self.cursor.take(part)) is not None:
                    yield Told(part, in_order)
            if not found.more or len(parts) < len(found.parts):
                return

    def _is_place_in(self, found: Look) -> bool:
        """Whether the cursor is one that this log may have given, and not of another or forged."""
        cursor = self.cursor
        return (
            cursor.follows(found.generation, found.attempt_id)
            and cursor.next <= found.highest + 1
            and cursor.top <= found.top
        )

    async def _look(self) -> Look:
        async with self._hub.pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
            since = Since(self._job_id, self.cursor.next, self.cursor.lasts)
            (found,) = await look(connection, [since])
        if found is None:
            raise ConnectionError("the log is gone")
        return found

    async def _passed(self, found: Look) -> AsyncIterator[Told]:
        """Tell, once, what came below the place where a reader resumes."""
        while self._resumes:
            async with self._hub.pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
                passed = await passed_parts(connection, found, self.cursor, 0)
            for part in passed:
                self.cursor.take(part)
                yield Told(part, in_order=False)
            self._resumes = bool(passed)


async def cursor_after(connection: Connection, found: Snapshot) -> Cursor:
    """The place of a reader who has seen all of a log that is still in parts."""
    cursor = Cursor(found.log.generation, found.attempt_id)
    parts = found.parts
    if parts is None:
        return cursor
    lasts = [place for place, number in enumerate(parts.numbers) if number == LAST]
    for number, id_, final in zip(parts.numbers, parts.ids, parts.final, strict=True):
        if number != LAST:
            cursor.take(StoredPart(id_, number, bool(final), b""))
    for part in await reading.read_parts(connection, found.log.id, parts, lasts) if lasts else ():
        cursor.take(part)
    return cursor
