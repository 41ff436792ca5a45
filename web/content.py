"""A log's bytes, from wherever it now is: its parts, its row or the archive."""

from collections.abc import AsyncIterator

import asyncpg

from archive.store import Archive
from db import logs
from domain import Log
from errors import ContentReplaced

# What one response holds in memory at a time.
SLICE_BYTES = 1024 * 1024


async def stream(pool: asyncpg.Pool, archive: Archive, log: Log) -> AsyncIterator[bytes]:
    """Read the content piece by piece, in bounded memory.

    Raises:
        ContentReplaced: it changed on the way; what was sent so far belongs to no log.
    """
    if log.aggregated_at is None:
        async with pool.acquire() as connection:
            async for part in logs.parts_content(connection, log.id):
                yield part
        return
    sent = 0
    async for piece in _from_row(pool, log):
        yield piece
        sent += len(piece)
    if sent < (log.content_bytes or 0):
        async for piece in archive.stream(log.job_id, start=sent):
            yield piece


async def _from_row(pool: asyncpg.Pool, log: Log) -> AsyncIterator[bytes]:
    """Read slices of the row's content; ends early where the purge took it to the archive alone."""
    for start in range(0, (log.content_bytes or 0) if log.purged_at is None else 0, SLICE_BYTES):
        async with pool.acquire() as connection:
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
