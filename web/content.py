"""A log's bytes, from wherever it now is: its parts, its row or the archive."""

from collections.abc import AsyncIterator

import asyncpg

from archive.store import Archive
from db import logs
from domain import Log
from errors import ContentReplaced

# What one response holds in memory at a time.
SLICE_BYTES = 1024 * 1024
PARTS_AT_ONCE = 500
# A reader that gets no connection is told to try again.
ACQUIRE_SECONDS = 5


async def stream(pool: asyncpg.Pool, archive: Archive, log: Log) -> AsyncIterator[bytes]:
    """Read the content piece by piece, in bounded memory.

    Raises:
        ContentReplaced: it changed on the way; what was sent so far belongs to no log.
    """
    if log.aggregated_at is None:
        async for piece in _from_parts(pool, log):
            yield piece
        return
    sent = 0
    async for piece in _from_row(pool, log):
        yield piece
        sent += len(piece)
    if sent < (log.content_bytes or 0):
        async for piece in archive.stream(log.job_id, start=sent, sha256=log.content_sha256):
            yield piece


async def _from_parts(pool: asyncpg.Pool, log: Log) -> AsyncIterator[bytes]:
    """Read the parts, some at a time: a slow reader holds no connection."""
    async with pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
        keys = await logs.content_keys(connection, log.id)
    for start in range(0, len(keys), PARTS_AT_ONCE):
        async with pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
            parts = await logs.read_parts(connection, log.id, keys[start : start + PARTS_AT_ONCE])
        yield b"".join(parts)


async def _from_row(pool: asyncpg.Pool, log: Log) -> AsyncIterator[bytes]:
    """Read slices of the row's content; ends early where the purge took it to the archive alone."""
    for start in range(0, (log.content_bytes or 0) if log.purged_at is None else 0, SLICE_BYTES):
        async with pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
            try:
                piece = await logs.content_slice(
                    connection, log.id, log.content_sha256 or "", start, SLICE_BYTES
                )
            except ContentReplaced:
                now = await logs.find(connection, log.job_id)
                if now.content_sha256 != log.content_sha256 or now.purged_at is None:
                    raise
                return
        yield piece


async def whole(pool: asyncpg.Pool, archive: Archive, log: Log) -> bytes:
    """Read the whole content into memory."""
    return b"".join([piece async for piece in stream(pool, archive, log)])
