"""Brings one batch to safety: its parts into Postgres, what is no part into the reject queue."""

import asyncio
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence

import asyncpg
import structlog

from db.parts import AttemptParts, store_batch
from drain import metrics
from drain.batch import Batch, Reject
from drain.dead_letters import Rejects
from drain.deliveries import Delivery
from drain.live.forwarder import Forwarder
from drain.tracing import flushed
from logflume.domain import Part, StoredAttempt
from logflume.errors import UnderMaintenance
from logflume.observability import spans
from workflows.types import Batch as Stored

log = structlog.get_logger()

# A flush that takes longer has lost its Postgres without being told.
STORE_SECONDS = 60
MAX_BACKOFF_SECONDS = 5.0
# Rejects of a batch that are published at once. More of them would use up the time that each has,
# and be sent again for ever.
REJECTS_AT_ONCE = 100
# How often a flush asks whether maintenance is over: it may be, before its time.
MAINTENANCE_SECONDS = 1.0


class Flusher:
    """Stores batches; several may be under way at once."""

    def __init__(self, pool: asyncpg.Pool, rejects: Rejects, live: Forwarder | None = None) -> None:
        self._pool = pool
        self._rejects = rejects
        self._live = live
        self._unshown: deque[Batch] = deque()

    def opened(self, batch: Batch) -> None:
        """A batch goes to be flushed; batches are opened in the order they were received."""
        if self._live:
            self._unshown.append(batch)

    async def store(self, batch: Batch) -> dict[int, Stored]:
        """Commit a batch's parts, however long Postgres takes to be there.

        Returns what was added to which job's log; the batch tells where each part went. A part
        that Postgres refuses becomes one of the batch's rejects.
        """
        stored: dict[int, Stored] = {}
        if batch.parts:
            began, began_ns = time.perf_counter(), time.time_ns()
            await self._store(batch, slice(0, len(batch.parts)), stored)
            metrics.committed(batch, time.perf_counter() - began)
            if spans.is_on():
                flushed(batch, stored, began_ns)
        batch.stored = True
        self._show()
        return stored

    def _show(self) -> None:
        """Hand what is committed over to go live, in the order in which it was received."""
        while self._live and self._unshown and self._unshown[0].stored:
            self._live.submit(self._unshown.popleft().placed)

    async def keep_rejects(self, batch: Batch) -> list[Delivery]:
        """Keep what is no part, with the reason; returns what RabbitMQ does not take now."""
        unkept = []
        for at in range(0, len(batch.rejects), REJECTS_AT_ONCE):
            some = batch.rejects[at : at + REJECTS_AT_ONCE]
            kept = await asyncio.gather(
                *(self._rejects.keep(reject.message, reject.reason) for reject in some)
            )
            unkept += [
                reject.message for reject, is_kept in zip(some, kept, strict=True) if not is_kept
            ]
            if not any(kept):
                rest = batch.rejects[at + REJECTS_AT_ONCE :]
                metrics.REJECTS.labels("requeued").inc(len(rest))
                return [*unkept, *(reject.message for reject in rest)]
        return unkept

    async def _store(self, batch: Batch, which: slice, stored: dict[int, Stored]) -> None:
        """Commit some of a batch's parts; one that Postgres refuses is found by halving."""
        parts = batch.parts[which]
        try:
            placed = await self._commit(parts)
        except _REFUSED as error:
            if len(parts) == 1:
                # The first argument alone: the rest of Postgres' text quotes the row.
                said = f"Postgres refuses it: {error.args[0]}"
                log.error("part_refused", job_id=parts[0].job_id, error=said)
                batch.rejects.append(Reject(batch.messages[which.start], said))
                return
            middle = which.start + len(parts) // 2
            await self._store(batch, slice(which.start, middle), stored)
            await self._store(batch, slice(middle, which.stop), stored)
        else:
            batch.placed += placed
            for job_id, added in _summary(placed):
                stored[job_id] = stored[job_id] + added if job_id in stored else added

    async def _commit(self, parts: Sequence[Part]) -> list[tuple[AttemptParts, StoredAttempt]]:
        backoff = 0.1
        while True:
            try:
                async with asyncio.timeout(STORE_SECONDS), self._pool.acquire() as connection:
                    return await store_batch(connection, parts)
            except _REFUSED:
                raise
            except UnderMaintenance as error:
                log.info("flush_waits", parts=len(parts), seconds=round(error.seconds))
                await asyncio.sleep(min(error.seconds, MAINTENANCE_SECONDS))
            except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                said = str(error.args[0]) if error.args else type(error).__name__
                metrics.FLUSH_FAILURES.inc()
                log.warning("flush_failed", parts=len(parts), error=said, retry_in=backoff)
                await asyncio.sleep(backoff)
                backoff = min(2 * backoff, MAX_BACKOFF_SECONDS)


# Postgres or its client says that the data itself is wrong: trying again is no use. (The client's
# own data errors are ValueErrors.)
_REFUSED = (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError, ValueError)


def _summary(placed: Iterable[tuple[AttemptParts, StoredAttempt]]) -> Iterator[tuple[int, Stored]]:
    """What a committed batch added to each log, by job; stale parts add nothing."""
    for group, place in placed:
        if place.is_open:
            # Another attempt may be the log now and have ended long ago: worth a look.
            final = group.last_final or (group.final and place.is_log) or place.moved
            begun = place.begun and place.is_log
            yield group.job_id, Stored(len(group.parts), group.bytes, final=final, begun=begun)
