"""The activities of a log's life. All may run twice, also at once: each asks the row first."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import asyncpg
from temporalio import activity

from activities import metrics, tracing
from activities.heartbeat import beating
from activities.types import (
    AGGREGATE,
    ARCHIVE,
    DELETE_ARCHIVE,
    PURGE,
    RESTORE,
    VERIFY,
    AggregateOrder,
    ArchiveOrder,
    Verdict,
)
from db import aggregation, holds, logs, reading
from logflume.archive.store import Archive, ObjectInfo
from logflume.domain import Content, Origin
from logflume.errors import ComponentError, ContentReplaced, NotArchived, PartsGone
from logflume.markers import StepReader
from logflume.observability import spans

# Each holds a connection to the end, also while the archive is slow.
RESTORES_AT_ONCE = 2


class DatabaseActivities:
    """What happens inside Postgres."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    @activity.defn(name=AGGREGATE)
    async def aggregate(self, order: AggregateOrder) -> Content:
        """Make the log's content of its parts."""
        async with beating(), self._pool.acquire() as connection:
            content = await aggregation.aggregate(
                connection,
                order.job_id,
                force=order.force,
                restore=order.restore,
                max_bytes=order.max_bytes,
            )
        if content.sha256:
            metrics.AGGREGATED_LOGS.inc()
        if content.left_out_bytes:
            metrics.CUT_LOGS.inc()
        return content

    @activity.defn(name=PURGE)
    async def purge(self, order: ArchiveOrder) -> bool:
        """Clear the row's copy of what the archive holds; False where that is something else."""
        async with beating(), self._pool.acquire() as connection:
            purged = await logs.purge(connection, order.job_id, order.sha256)
        if purged:
            metrics.PURGED_LOGS.inc()
        return purged


class ArchiveActivities:
    """What moves bytes to the archive and back, a slice at a time."""

    def __init__(self, pool: asyncpg.Pool, archive: Archive) -> None:
        self._pool = pool
        self._archive = archive
        self._restores = asyncio.Semaphore(RESTORES_AT_ONCE)

    @property
    def all(self) -> Sequence[Callable[..., Any]]:
        """Every one, for a worker."""
        return self.archive, self.verify, self.restore, self.delete_archive

    @activity.defn(name=ARCHIVE)
    async def archive(self, order: ArchiveOrder) -> bool:
        """Upload the content; False where the log has other content by now.

        What a later state of the database put there is not written over.
        """
        async with beating():
            there = await self._look(order.job_id)
            try:
                async with self._pool.acquire() as connection:
                    log_id, origin = await logs.mark_archiving(
                        connection,
                        order.job_id,
                        order.sha256,
                        there=_upload_of(there),
                        same=there is not None and there.sha256 == order.sha256,
                    )
                metrics.ARCHIVE_ATTEMPTS.inc()

                async def read(start: int, size: int) -> bytes:
                    # A connection for each slice: none is held while the archive is slow.
                    async with self._pool.acquire() as connection:
                        return await reading.content_slice(
                            connection, log_id, order.sha256, start, size
                        )

                await self._archive.upload(
                    order.job_id,
                    read,
                    order.bytes,
                    sha256=order.sha256,
                    parts=order.parts,
                    origin=origin.text,
                )
            except ContentReplaced:
                return False
        return True

    @activity.defn(name=VERIFY)
    async def verify(self, order: ArchiveOrder) -> Verdict:
        """Read the archived object back and compare its length and SHA-256 with the row's own.

        What it says of its steps is kept when all is well: it is read only once.
        """
        reader = StepReader()
        async with beating():
            found = await self._archive.digest(order.job_id, reader.feed)
            reader.feed(b"", last=True)
            if found is None:
                metrics.ARCHIVE_MISMATCHES.inc()
                return Verdict(ok=False, reason="verify: the archived object is missing")
            if (found.sha256, found.bytes) != (order.sha256, order.bytes):
                metrics.ARCHIVE_MISMATCHES.inc()
                return Verdict(
                    ok=False,
                    reason=f"verify: archived {found.bytes} bytes with SHA-256 {found.sha256}, "
                    f"not {order.bytes} with {order.sha256}",
                )
            async with self._pool.acquire() as connection:
                verified = await logs.mark_verified(
                    connection, order.job_id, order.sha256, reader.steps
                )
                if verified is None:
                    return Verdict(ok=False, replaced=True)
                # After the commit: a hold put on before it did not find the content verified.
                held = await holds.read(connection, order.job_id)
                if spans.is_sampled(spans.of_log(order.job_id)):
                    log = await reading.find(connection, order.job_id)
                    tracing.verified(log, reader.steps)
            if held:
                await self._keep(order.job_id)
        metrics.verified(order.bytes, verified)
        return Verdict(ok=True)

    async def _keep(self, job_id: int) -> None:
        """Copy what is archived of a held log; nothing stays of it if the hold ended meanwhile."""
        await self._archive.copy_to_hold(job_id)
        async with self._pool.acquire() as connection:
            held = await holds.read(connection, job_id)
        if not held:
            await self._archive.delete_hold_copies(job_id)

    @activity.defn(name=RESTORE)
    async def restore(self, job_id: int) -> None:
        """Read purged content back into the row, to add parts to it that came late."""
        async with beating(), self._restores, self._pool.acquire() as connection:
            try:
                await aggregation.restore_content(connection, job_id, self._archive.stream(job_id))
            except NotArchived as error:
                if (await reading.find(connection, job_id)).expired_at:
                    return  # meanwhile: there is nothing to add to any more
                raise PartsGone(
                    f"job {job_id}: parts it was made of are gone, and {error}"
                ) from error

    @activity.defn(name=DELETE_ARCHIVE)
    async def delete_archive(self, job_id: int) -> None:
        """Delete the archived object of a log whose text was written anew, and note that it went.

        What is owed stands in the row until then: a signal that is lost or doubled cannot matter,
        and a workflow that was reset deletes nothing that was archived since. What a later state of
        the database put there is not what was to go either.
        """
        async with beating():
            async with self._pool.acquire() as connection:
                uploads = await logs.owes_deletion(connection, job_id)
            if uploads is None:
                return
            if _upload_of(await self._look(job_id)) <= uploads:
                await self._archive.delete(job_id)
                if await self._look(job_id):
                    raise ComponentError(f"job {job_id}: its object is there after its deletion")
            async with self._pool.acquire() as connection:
                await logs.mark_archive_deleted(connection, job_id)

    async def _look(self, job_id: int) -> ObjectInfo | None:
        try:
            return await self._archive.head(job_id)
        except NotArchived:
            return None


def _upload_of(there: ObjectInfo | None) -> int:
    """Which upload made an object; 0 where that is not known."""
    return Origin.read(there.origin).upload if there and there.origin else 0
