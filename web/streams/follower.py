"""Follows a log for one stream: history first, then the updates of its feed.

It subscribes to the feed before it reads the history, so nothing is missed in between, and its
cursor drops what arrives twice. The feed starts no further than where that history ends.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from enum import Enum
from typing import NamedTuple

from db import reading
from db.connect import Connection
from db.reading import PartList, Snapshot
from db.tail import Since, TailPage, read_tails
from logflume.domain import LAST, StoredPart
from web.streams.cursor import Cursor
from web.streams.feed import Subscriber, Update, read_late
from web.streams.hub import Hub


class PartEvent(NamedTuple):
    """A part; `in_order`: it follows all earlier events, else it belongs somewhere above."""

    part: StoredPart
    in_order: bool


class ControlEvent(Enum):
    """Events without a part."""

    HEARTBEAT = "heartbeat"
    """Nothing new; the stream is alive."""
    RESET = "reset"
    """The log was replaced: discard all earlier events."""
    FINAL = "final"
    """The log has ended."""
    RECONNECT = "reconnect"
    """Reconnect with the last cursor: the client is too slow, or the process stops."""


Event = PartEvent | ControlEvent


class Follower:
    """Follows a log from a cursor on, or from its beginning; `cursor` is the current position."""

    def __init__(self, hub: Hub, job_id: int, cursor: Cursor | None) -> None:
        self._hub = hub
        self._job_id = job_id
        self._resumes = cursor is not None
        self._aggregated = False
        self.cursor = cursor or Cursor(0, 0)

    async def follow(self) -> AsyncGenerator[Event]:
        """Yield events until the log ends or the client must reconnect."""
        feed, subscriber = self._hub.subscribe(self._job_id)
        try:
            if self._resumes and not feed.is_started:
                # A cursor from a client may be forged: it must not set where the feed starts.
                feed.start(await self._end())
            async for event in self._history():
                yield event
            if self.cursor.ended or self._aggregated:
                yield ControlEvent.FINAL
                return
            if not feed.is_started:
                feed.start(self.cursor)
            async for event in self._live(subscriber):
                yield event
        finally:
            self._hub.unsubscribe(self._job_id, feed, subscriber)

    async def _end(self) -> Cursor:
        """The cursor after everything stored so far."""
        async with self._hub.connection() as connection:
            log = await reading.find(connection, self._job_id)
            return await cursor_after(connection, await reading.snapshot(connection, log))

    async def _live(self, subscriber: Subscriber) -> AsyncIterator[Event]:
        while True:
            update = await subscriber.get()
            if subscriber.closed:
                yield ControlEvent.RECONNECT
                return
            if update is None:
                yield ControlEvent.HEARTBEAT
                continue
            async for event in self._apply(update):
                yield event
            if self.cursor.ended or update.aggregated or self._aggregated:
                yield ControlEvent.FINAL
                return

    async def _apply(self, update: Update) -> AsyncIterator[Event]:
        # The feed may have started beyond this cursor: read the history in between.
        if update.reset or update.start > max(self.cursor.next, 0):
            async for event in self._history():
                yield event
        for part in update.parts:
            if (in_order := self.cursor.take(part)) is not None:
                yield PartEvent(part, in_order)

    async def _history(self) -> AsyncIterator[Event]:
        """Yield all stored parts, page by page; holds no connection while a page is sent."""
        while True:
            page = await self._poll()
            self._aggregated = page.aggregated and not page.more
            if not self._is_possible(page):
                is_reset = not self.cursor.is_fresh
                self.cursor, self._resumes = Cursor(page.generation, page.attempt_id), False
                if is_reset:
                    yield ControlEvent.RESET
                continue
            async for event in self._late(page):
                yield event
            parts = page.parts if page.aggregated else [*self.cursor.reachable(page.parts)]
            for part in parts:
                if (in_order := self.cursor.take(part)) is not None:
                    yield PartEvent(part, in_order)
            if not page.more or len(parts) < len(page.parts):
                return

    def _is_possible(self, page: TailPage) -> bool:
        """Whether the cursor can come from this log; others are from an earlier one, or forged."""
        cursor = self.cursor
        return (
            cursor.is_in(page.generation, page.attempt_id)
            and cursor.next <= page.highest + 1
            and cursor.top <= page.top
        )

    async def _poll(self) -> TailPage:
        async with self._hub.connection() as connection:
            since = Since(self._job_id, self.cursor.next, self.cursor.lasts)
            (page,) = await read_tails(connection, [since])
        if page is None:
            raise ConnectionError("the log was deleted")
        return page

    async def _late(self, page: TailPage) -> AsyncIterator[PartEvent]:
        """On resuming, yield the late parts below the cursor once."""
        while self._resumes:
            async with self._hub.connection() as connection:
                parts = await read_late(connection, page, self.cursor, 0)
            for part in parts:
                self.cursor.take(part)
                yield PartEvent(part, in_order=False)
            self._resumes = bool(parts)


async def cursor_after(connection: Connection, snapshot: Snapshot) -> Cursor:
    """The cursor after all parts of a log that is not aggregated."""
    cursor = Cursor(snapshot.log.generation, snapshot.attempt_id)
    parts = snapshot.parts
    if parts is None:
        return cursor
    lasts = [index for index, number in enumerate(parts.numbers) if number == LAST]
    await asyncio.to_thread(_take_numbered, cursor, parts)  # seconds for millions of parts
    if lasts:
        for part in await reading.read_parts(connection, snapshot.log.id, parts, lasts):
            cursor.take(part)
    return cursor


def _take_numbered(cursor: Cursor, parts: PartList) -> None:
    for number, id_, final in zip(parts.numbers, parts.ids, parts.final, strict=True):
        if number != LAST:
            cursor.take(StoredPart(id_, number, bool(final), b""))
