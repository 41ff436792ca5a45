"""Reads the bytes of a log from its parts, its row or the archive."""

import hashlib
from bisect import bisect_right
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import aclosing
from typing import Any, TypeVar

import asyncpg

from db import reading
from db.reading import PartList, Snapshot
from logflume.archive.store import Archive, ObjectInfo
from logflume.domain import Log, StoredPart
from logflume.errors import ContentReplaced, LogExpired
from web.streams.cursor import Cursor
from web.streams.follower import cursor_after
from web.streams.poller import ACQUIRE_SECONDS

# Indexes into a list of parts; those in a range are contiguous.
Indexes = TypeVar("Indexes", range, list[int])

# What one response holds in memory at a time, or one part if that is larger.
SLICE_BYTES = 1024 * 1024
GROUP_PARTS = 500


class Content:
    """The bytes of a log at one moment; reading fails if they were replaced since.

    `size` is in bytes; `etag` changes with every byte. `stored`: the archived object of a log that
    travis-logs archived, whose SHA-256 is unknown.
    """

    def __init__(
        self,
        pool: asyncpg.Pool,
        archive: Archive,
        snapshot: Snapshot,
        stored: ObjectInfo | None = None,
    ) -> None:
        self._snapshot = snapshot
        self.log = snapshot.log
        self.parts = snapshot.parts
        self.is_earlier_attempt = not snapshot.is_log
        self._pool = pool
        self._archive = archive
        self._stored = stored
        if stored is not None:
            self.size = stored.bytes
            self.etag = hashlib.sha256(stored.etag.encode()).hexdigest()
        elif snapshot.parts is None:
            self.size = snapshot.log.content_bytes or 0
            self.etag = snapshot.log.content_sha256 or ""
        else:
            self.size = snapshot.parts.offsets[-1]
            # Parts are immutable, so their ids identify the bytes.
            self.etag = "p" + hashlib.sha256(snapshot.parts.ids.tobytes()).hexdigest()

    def read(self, start: int = 0, stop: int | None = None) -> AsyncIterator[bytes]:
        """Read the bytes from `start` up to `stop`, exclusive, in pieces of bounded size.

        Raises:
            ContentReplaced: the content was replaced; discard the pieces read so far.
        """
        stop = self.size if stop is None else min(stop, self.size)
        if self.parts is not None:
            return self._from_parts(self.parts, start, stop)
        if self._stored is not None:
            return self._from_archive(start, stop, etag=self._stored.etag)
        return self._from_row(start, stop)

    async def cursor(self) -> Cursor | None:
        """Where its stream continues after these bytes; None if nothing can follow them."""
        if self.parts is None or self.is_earlier_attempt:
            return None
        async with self._pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
            return await cursor_after(connection, self._snapshot)

    async def read_parts(self, parts: PartList, which: Sequence[int]) -> list[StoredPart]:
        """Read the parts at these indexes of the list."""
        # One connection per call, so that a slow reader holds none.
        async with self._pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
            return await reading.read_parts(connection, self.log.id, parts, which)

    async def _from_parts(self, parts: PartList, start: int, stop: int) -> AsyncIterator[bytes]:
        for which in groups(parts, range(*_overlapping(parts, start, stop))):
            begin = parts.offsets[which[0]]
            async with self._pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
                piece = await reading.read_bytes(connection, self.log.id, parts, which)
            yield piece[max(start - begin, 0) : stop - begin]

    async def _from_row(self, start: int, stop: int) -> AsyncIterator[bytes]:
        """Read slices of the row's content, and after a purge the rest from the archive."""
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
        async for piece in self._from_archive(start, stop, sha256=self.etag, size=self.size):
            yield piece

    async def _from_archive(self, start: int, stop: int, **match: Any) -> AsyncIterator[bytes]:
        if start < stop:
            archived = self._archive.stream(self.log.job_id, start=start, stop=stop, **match)
            async with aclosing(archived):
                async for piece in archived:
                    yield piece


def check_not_expired(log: Log) -> None:
    """Check that retention has not deleted the text of a log.

    Raises:
        LogExpired: it has.
    """
    if log.expired_at:
        raise LogExpired(
            f"the text of job {log.job_id} was deleted on {log.expired_at:%Y-%m-%d} by a retention "
            "policy"
        )


def _overlapping(parts: PartList, start: int, stop: int) -> tuple[int, int]:
    """The range of parts that contain the bytes from `start` up to `stop`, exclusive."""
    if start >= stop:
        return 0, 0
    first = bisect_right(parts.offsets, start) - 1
    return first, bisect_right(parts.offsets, stop - 1, first)


def groups(parts: PartList, which: Indexes) -> Iterator[Indexes]:
    """Split indexes of parts into groups of about `SLICE_BYTES`, but at least one part."""
    begin, size = 0, 0
    for end, index in enumerate(which):
        if size >= SLICE_BYTES or end - begin >= GROUP_PARTS:
            yield which[begin:end]
            begin, size = end, 0
        size += parts.offsets[index + 1] - parts.offsets[index]
    if begin < len(which):
        yield which[begin:]
