"""Brings one batch to safety: its parts into Postgres, what is no part into the reject queue."""

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime

import asyncpg
import structlog
from aio_pika import DeliveryMode, Message
from aio_pika.abc import AbstractChannel

import wire
from db.parts import AttemptParts, store_batch
from domain import Part, Place
from drain.batch import Batch, Reject
from workflows.types import Batch as Stored

log = structlog.get_logger()

# A flush that takes longer has lost its Postgres without being told.
STORE_SECONDS = 60
MAX_BACKOFF_SECONDS = 5.0


class Flusher:
    """Stores batches; several may be under way at once."""

    def __init__(self, pool: asyncpg.Pool, rejects: AbstractChannel) -> None:
        self._pool = pool
        self._rejects = rejects

    async def flush(self, batch: Batch) -> dict[int, Stored]:
        """Commit a batch, however long Postgres takes to be there.

        Returns what was added to which job's log, for those whose parts were stored.
        """
        stored: dict[int, Stored] = {}
        if batch.parts:
            await self._store(batch, slice(0, len(batch.parts)), stored)
        for reject in batch.rejects:
            await self._reject(reject)
        return stored

    async def _store(self, batch: Batch, which: slice, stored: dict[int, Stored]) -> None:
        """Commit some of a batch's parts; one that Postgres refuses is found by halving."""
        parts = batch.parts[which]
        try:
            placed = await self._commit(parts)
        except _REFUSED as error:
            if len(parts) == 1:
                log.error("part_refused", job_id=parts[0].job_id, error=str(error))
                batch.rejects.append(Reject(batch.messages[which.start], f"refused: {error}"))
                return
            middle = which.start + len(parts) // 2
            await self._store(batch, slice(which.start, middle), stored)
            await self._store(batch, slice(middle, which.stop), stored)
        else:
            for job_id, added in _summary(placed):
                stored[job_id] = stored[job_id] + added if job_id in stored else added

    async def _commit(self, parts: Sequence[Part]) -> list[tuple[AttemptParts, Place]]:
        backoff = 0.1
        while True:
            try:
                async with asyncio.timeout(STORE_SECONDS), self._pool.acquire() as connection:
                    return await store_batch(connection, parts)
            except _REFUSED:
                raise
            except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                said = str(error) or type(error).__name__
                log.warning("flush_failed", parts=len(parts), error=said, retry_in=backoff)
                await asyncio.sleep(backoff)
                backoff = min(2 * backoff, MAX_BACKOFF_SECONDS)

    async def _reject(self, reject: Reject) -> None:
        """Keep a rejected message with its reason; returns once RabbitMQ has it on disk."""
        properties = reject.message.header.properties
        log.warning("part_rejected", reason=reject.reason, bytes=len(reject.message.body))
        await self._rejects.default_exchange.publish(
            Message(
                reject.message.body,
                headers={
                    **(properties.headers or {}),
                    "x-reject-reason": reject.reason,
                    "x-reject-at": datetime.now(UTC).isoformat(),
                },
                content_type=properties.content_type,
                type=properties.message_type,
                timestamp=properties.timestamp,
                delivery_mode=DeliveryMode.PERSISTENT,
            ),
            wire.REJECTED_QUEUE,
        )


# Postgres or its client says that the data itself is wrong: trying again is no use. (The client's
# own data errors are ValueErrors.)
_REFUSED = (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError, ValueError)


def _summary(placed: Iterable[tuple[AttemptParts, Place]]) -> Iterator[tuple[int, Stored]]:
    """What a committed batch added to each log, by job; stale parts add nothing."""
    for group, place in placed:
        if place.is_open:
            final = group.last_final or (group.final and place.is_log)
            begun = place.begun and place.is_log
            yield group.job_id, Stored(len(group.parts), group.bytes, final=final, begun=begun)
