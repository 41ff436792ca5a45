"""Commits a batch: parts to Postgres, invalid messages to the dead-letter queue."""

import asyncio
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress

import asyncpg
import structlog

from db.connect import lock_waits
from db.errors import FAILURES, is_about_a_value
from db.parts import AttemptParts, store_batch
from drain import metrics
from drain.batch import Batch, DeadLetter
from drain.dead_letters import DeadLetterPublisher
from drain.live.forwarder import Forwarder
from drain.tracing import flushed
from logflume.backoff import Backoff
from logflume.domain import Part, StoredAttempt
from logflume.errors import UnderMaintenance
from logflume.observability import spans
from workflows.client.signaller import Signaller
from workflows.lifecycle_types import PartsStored

log = structlog.get_logger()

# A commit that takes longer has lost its connection without an error.
STORE_SECONDS = 60
MAX_BACKOFF_SECONDS = 5.0
# A flush that takes longer logs the locks it waits for.
LOCK_REPORT_SECONDS = 3.0
# The name of a drain's sessions in Postgres.
SESSIONS = "logflume drain"
# Dead letters published at once. With more of them each would exceed its time-out, and all would be
# published again without end.
DEAD_LETTERS_AT_ONCE = 100
# How often a flush checks whether maintenance has ended before its time.
MAINTENANCE_SECONDS = 1.0


class Flusher:
    """Flushes batches, several at once."""

    def __init__(
        self,
        pool: asyncpg.Pool,
        dead_letters: DeadLetterPublisher,
        signaller: Signaller,
        live: Forwarder | None = None,
    ) -> None:
        self._pool = pool
        self._dead_letters = dead_letters
        self._signaller = signaller
        self._live = live
        self._not_forwarded: deque[Batch] = deque()

    def open(self, batch: Batch) -> None:
        """Register a batch before its flush; batches are opened in the order of their receipt."""
        if self._live:
            self._not_forwarded.append(batch)

    async def flush(self, batch: Batch) -> list[DeadLetter]:
        """Commit a batch, and signal its workflows; retries until Postgres accepts it.

        A part that Postgres refuses becomes an invalid message. Returns the invalid messages that
        RabbitMQ did not accept as dead letters.
        """
        if batch.parts:
            for job_id, added in (await self._store(batch)).items():
                self._signaller.parts_stored(job_id, added)
        batch.stored = True
        self._forward()
        refused = await self.dead_letter(batch.invalid)
        metrics.INVALID_MESSAGES.labels("held").inc(len(refused))
        return refused

    async def _store(self, batch: Batch) -> dict[int, PartsStored]:
        """Commit a batch's parts; returns what was added to each job's log."""
        stored: dict[int, PartsStored] = {}
        began, began_ns = time.perf_counter(), time.time_ns()
        await self._store_range(batch, slice(0, len(batch.parts)), stored)
        metrics.committed(batch, time.perf_counter() - began)
        if spans.is_on():
            flushed(batch, stored, began_ns)
        return stored

    def _forward(self) -> None:
        """Forward committed parts to live readers, in the order of their receipt."""
        while self._live and self._not_forwarded and self._not_forwarded[0].stored:
            self._live.submit(self._not_forwarded.popleft().placed)

    async def dead_letter(self, letters: list[DeadLetter]) -> list[DeadLetter]:
        """Publish invalid messages to the dead-letter queue; returns those not accepted."""
        refused: list[DeadLetter] = []
        for start in range(0, len(letters), DEAD_LETTERS_AT_ONCE):
            some = letters[start : start + DEAD_LETTERS_AT_ONCE]
            published = await asyncio.gather(*map(self._dead_letters.publish, some))
            if not any(published):  # nor would the others be accepted
                return refused + letters[start:]
            refused += [
                letter
                for letter, is_published in zip(some, published, strict=True)
                if not is_published
            ]
        return refused

    async def _store_range(
        self, batch: Batch, which: slice, stored: dict[int, PartsStored]
    ) -> None:
        """Commit some of a batch's parts; finds one that Postgres refuses by halving."""
        parts = batch.parts[which]
        try:
            placed = await self._commit(parts)
        except asyncpg.PostgresError as error:
            if len(parts) == 1:
                # Only the first argument: the rest of Postgres' text quotes the row.
                reason = f"Postgres refuses it: {error.args[0]}"
                log.error("part_refused", job_id=parts[0].job_id, error=reason)
                batch.invalid.append(DeadLetter(batch.messages[which.start], reason))
                return
            middle = which.start + len(parts) // 2
            await self._store_range(batch, slice(which.start, middle), stored)
            await self._store_range(batch, slice(middle, which.stop), stored)
        else:
            batch.placed += placed
            for job_id, added in _summary(placed):
                stored[job_id] = stored[job_id] + added if job_id in stored else added

    async def _commit(self, parts: Sequence[Part]) -> list[tuple[AttemptParts, StoredAttempt]]:
        """Commit parts; retries every error that is not about one of their values.

        Raises:
            asyncpg.PostgresError: Postgres reports that a value of a part is invalid.
        """
        backoff = Backoff(MAX_BACKOFF_SECONDS)
        while True:
            try:
                async with asyncio.timeout(STORE_SECONDS), self._pool.acquire() as connection:
                    with self._reporting_locks(len(parts)):
                        return await store_batch(connection, parts)
            except UnderMaintenance as error:
                log.info("flush_waits", parts=len(parts), seconds=round(error.seconds))
                await asyncio.sleep(min(error.seconds, MAINTENANCE_SECONDS))
            except FAILURES as error:
                if is_about_a_value(error):
                    raise
                delay = backoff.next()
                metrics.FLUSH_FAILURES.inc()
                log.warning(
                    "flush_failed",
                    parts=len(parts),
                    error=describe_failure(error),
                    next="retries; nothing is acknowledged before Postgres accepts the batch",
                    retry_in=delay,
                )
                await asyncio.sleep(delay)

    @contextmanager
    def _reporting_locks(self, parts: int) -> Iterator[None]:
        """Log which locks the block waits for, and who holds them, if it takes long."""
        report = asyncio.create_task(self._report_locks(parts))
        try:
            yield
        finally:
            report.cancel()

    async def _report_locks(self, parts: int) -> None:
        await asyncio.sleep(LOCK_REPORT_SECONDS)
        with suppress(*FAILURES):
            async with self._pool.acquire(timeout=STORE_SECONDS) as connection:
                if waits := await lock_waits(connection, SESSIONS):
                    log.warning("flush_waits_for_lock", parts=parts, locks=waits)


def describe_failure(error: BaseException) -> str:
    """Name Postgres and the reason; never quotes a row."""
    if isinstance(error, TimeoutError):
        return f"Postgres did not commit within {STORE_SECONDS} s"
    if isinstance(error, asyncpg.InterfaceError) and isinstance(error.__context__, FAILURES):
        # The end of a transaction on a lost connection fails too: name what came first.
        return describe_failure(error.__context__)
    # Only the first line: the rest of Postgres' text quotes the row.
    return f"Postgres: {str(error).partition(chr(10))[0] or type(error).__name__}"


def _summary(
    placed: Iterable[tuple[AttemptParts, StoredAttempt]],
) -> Iterator[tuple[int, PartsStored]]:
    """What a committed batch added to each log, by job; stale parts add nothing."""
    for group, attempt in placed:
        if attempt.is_open:
            # If the attempt's begin moved, another one may be the log now, and already final.
            final = group.last_final or (group.final and attempt.is_log) or attempt.moved
            begun = attempt.begun and attempt.is_log
            yield group.job_id, PartsStored(len(group.parts), group.bytes, final=final, begun=begun)
