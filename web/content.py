"""A log's bytes, from wherever it now is: its parts, its row or the archive."""

import hashlib
from bisect import bisect_right
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import aclosing
from typing import TypeVar

import asyncpg

from db import reading
from db.reading import PartList, Snapshot
from logflume.archive.store import Archive, ObjectInfo
from logflume.domain import Log, StoredPart
from logflume.errors import ContentReplaced, LogExpired
from web.streams.cursor import Cursor
from web.streams.follower import cursor_after

# Places in a list of parts; those of a range stand one after the other.
Places = TypeVar("Places", range, list[int])

# What one response holds in memory at a time, a part being as large as it came.
SLICE_BYTES = 1024 * 1024
PARTS_AT_ONCE = 500
# A reader that gets no connection is told to try again.
ACQUIRE_SECONDS = 5


class Content:
    """The bytes a log has at one moment; reading fails where they were replaced since.

    `size` is in bytes; `etag` changes with every byte. `stored`: what the archive has of a log that
    travis-logs archived, of which nobody told us a hash.
    """

    def __init__(
        self,
        pool: asyncpg.Pool,
        archive: Archive,
        found: Snapshot,
        stored: ObjectInfo | None = None,
    ) -> None:
        self._snapshot = found
        self.log = found.log
        self.parts = found.parts
        self.is_earlier_attempt = not found.is_log
        self._pool = pool
        self._archive = archive
        self._stored = stored
        if stored is not None:
            self.size = stored.bytes
            self.etag = hashlib.sha256(stored.etag.encode()).hexdigest()
        elif found.parts is None:
            self.size = found.log.content_bytes or 0
            self.etag = found.log.content_sha256 or ""
        else:
            self.size = found.parts.offsets[-1]
            # Parts never change: which they are tells what the bytes are.
            self.etag = "p" + hashlib.sha256(found.parts.ids.tobytes()).hexdigest()

    def read(self, start: int = 0, stop: int | None = None) -> AsyncIterator[bytes]:
        """Read the bytes from `start` to before `stop`, piece by piece, in bounded memory.

        Raises:
            ContentReplaced: they changed on the way; what was sent so far belongs to no log.
        """
        stop = self.size if stop is None else min(stop, self.size)
        if self.parts is not None:
            return self._from_parts(self.parts, start, stop)
        if self._stored is not None:
            return self._from_archive(start, stop, etag=self._stored.etag)
        return self._from_row(start, stop)

    async def cursor(self) -> Cursor | None:
        """Where its stream goes on after these bytes; None where nothing can follow them."""
        if self.parts is None or self.is_earlier_attempt:
            return None
        async with self._pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
            return await cursor_after(connection, self._snapshot)

    async def whole(self) -> bytes:
        """Read all of it into memory."""
        return b"".join([piece async for piece in self.read()])

    async def read_parts(self, parts: PartList, which: Sequence[int]) -> list[StoredPart]:
        """Read the parts at these places of the list."""
        # A connection for each call: a slow reader holds none.
        async with self._pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
            return await reading.read_parts(connection, self.log.id, parts, which)

    async def _from_parts(self, parts: PartList, start: int, stop: int) -> AsyncIterator[bytes]:
        for which in groups(parts, range(*_overlapping(parts, start, stop))):
            begin = parts.offsets[which[0]]
            async with self._pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
                piece = await reading.read_bytes(connection, self.log.id, parts, which)
            yield piece[max(start - begin, 0) : stop - begin]

    async def _from_row(self, start: int, stop: int) -> AsyncIterator[bytes]:
        """Read slices of the row's content, and what the purge took of it from the archive."""
        log = self.log
        while start < stop and log.purged_at is None:
            try:
                async with self._pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
                    piece = await reading.content_slice(
                        connection, log.id, self.etag, start, min(SLICE_BYTES, stop - start)
                    )
            except ContentReplaced:
                async with self._pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
                    log = await reading.find(connection, log.job_id)
                if log.content_sha256 != self.etag or log.purged_at is None:
                    raise
                break
            yield piece
            start += len(piece)
        async for piece in self._from_archive(start, stop, sha256=self.etag):
            yield piece

    async def _from_archive(self, start: int, stop: int, **of: str) -> AsyncIterator[bytes]:
        if start < stop:
            archived = self._archive.stream(self.log.job_id, start=start, stop=stop, **of)
            async with aclosing(archived):
                async for piece in archived:
                    yield piece


async def open_content(
    pool: asyncpg.Pool, archive: Archive, log: Log, attempt: str | None = None
) -> Content:
    """Find out what a log, or an earlier attempt of it, is made of now.

    Raises:
        UnknownLog: it has no such attempt, or no longer.
        LogExpired: retention deleted its text.
        NotArchived: travis-logs archived it, and the archive does not hold it.
    """
    async with pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
        found = await reading.snapshot(connection, log, attempt)
    check_not_expired(found.log)
    stored = None
    if found.parts is None and found.log.purged_at and found.log.content_sha256 is None:
        stored = await archive.head(log.job_id)
    return Content(pool, archive, found, stored)


def check_not_expired(log: Log) -> None:
    """Find out whether a log has text that may be read.

    Raises:
        LogExpired: retention deleted it.
    """
    if log.expired_at:
        raise LogExpired(
            f"the text of job {log.job_id} was deleted on {log.expired_at:%Y-%m-%d}, when its time "
            "was over"
        )


def _overlapping(parts: PartList, start: int, stop: int) -> tuple[int, int]:
    """The places of the parts that hold the bytes from `start` to before `stop`."""
    if start >= stop:
        return 0, 0
    first = bisect_right(parts.offsets, start) - 1
    return first, bisect_right(parts.offsets, stop - 1, first)


def groups(parts: PartList, which: Places) -> Iterator[Places]:
    """Cut a choice of parts into pieces of about `SLICE_BYTES`, one part at the least."""
    begin, size = 0, 0
    for end, place in enumerate(which):
        if size >= SLICE_BYTES or end - begin >= PARTS_AT_ONCE:
            yield which[begin:end]
            begin, size = end, 0
        size += parts.offsets[place + 1] - parts.offsets[place]
    if begin < len(which):
        yield which[begin:]
