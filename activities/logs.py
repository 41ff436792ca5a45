"""The activities of a lifecycle. All are idempotent: each checks the row first."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import asyncpg
import structlog
from temporalio import activity

from activities import metrics, tracing
from activities.heartbeat import heartbeating
from activities.types import (
    AGGREGATE,
    ARCHIVE,
    CHECK_ARCHIVE,
    DELETE_ARCHIVE,
    PURGE,
    RESTORE,
    VERIFY,
    AggregateInput,
    ArchiveInput,
    Verdict,
)
from db import aggregation, holds, logs, reading
from logflume.archive.store import Archive, Digest, ObjectInfo
from logflume.domain import Content, Origin
from logflume.errors import (
    ArchiveChanged,
    ComponentError,
    ContentReplaced,
    ContentTooLarge,
    NotArchived,
    PartsGone,
)
from logflume.markers import StepReader
from logflume.observability import spans

log = structlog.get_logger()

# Each occupies a connection throughout, also while the archive is slow.
CONCURRENT_RESTORES = 2


class DatabaseActivities:
    """Activities inside Postgres."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    @activity.defn(name=AGGREGATE)
    async def aggregate(self, argument: AggregateInput) -> Content:
        """Aggregate the log's parts into its content."""
        async with heartbeating(), self._pool.acquire() as connection:
            with _size_limit(argument.job_id):
                content = await aggregation.aggregate(
                    connection,
                    argument.job_id,
                    force=argument.force,
                    restore=argument.restore,
                    max_bytes=argument.max_bytes,
                )
        if content.sha256:
            metrics.AGGREGATED_LOGS.inc()
        if content.left_out_bytes:
            metrics.CUT_LOGS.inc()
        return content

    @activity.defn(name=PURGE)
    async def purge(self, argument: ArchiveInput) -> bool:
        """Clear the row's copy of the archived content; False if the content has changed."""
        async with heartbeating(), self._pool.acquire() as connection:
            purged = await logs.purge(connection, argument.job_id, argument.sha256)
        if purged:
            metrics.PURGED_LOGS.inc()
        return purged


class ArchiveActivities:
    """Activities that move content to and from the archive, in slices."""

    def __init__(self, pool: asyncpg.Pool, archive: Archive) -> None:
        self._pool = pool
        self._archive = archive
        self._restores = asyncio.Semaphore(CONCURRENT_RESTORES)

    @property
    def all(self) -> Sequence[Callable[..., Any]]:
        """All of them, for a worker."""
        return self.archive, self.verify, self.check_archive, self.restore, self.delete_archive

    @activity.defn(name=ARCHIVE)
    async def archive(self, argument: ArchiveInput) -> bool:
        """Upload the content; False if the log has other content by now.

        Raises ArchiveAhead if a later state of the database (before a restore) wrote the object.

        The upload replaces only the object that was inspected here. A first upload is not preceded
        by an inspection: there must not be any object.
        """
        async with heartbeating():
            async with self._pool.acquire() as connection:
                uploads = await logs.uploads(connection, argument.job_id)
            stored = await self._find_object(argument.job_id) if uploads else None
            try:
                async with self._pool.acquire() as connection:
                    log_id, origin = await logs.mark_archiving(
                        connection,
                        argument.job_id,
                        argument.sha256,
                        there=_upload_of(stored),
                        same=stored is not None and stored.sha256 == argument.sha256,
                    )
                metrics.ARCHIVE_ATTEMPTS.inc()

                async def read(start: int, size: int) -> bytes:
                    # A connection per slice: none is occupied while the archive is slow.
                    async with self._pool.acquire() as connection:
                        return await reading.content_slice(
                            connection, log_id, argument.sha256, start, size
                        )

                await self._archive.upload(
                    argument.job_id,
                    read,
                    argument.bytes,
                    sha256=argument.sha256,
                    parts=argument.parts,
                    origin=origin.text,
                    etag=stored.etag if stored else None,
                )
            except ArchiveChanged:
                if not await self._is_archived_already(argument, origin):
                    raise
            except ContentReplaced:
                return False
        return True

    async def _is_archived_already(self, argument: ArchiveInput, origin: Origin) -> bool:
        """Whether an upload was refused because an earlier request for the same content ended late.

        Raises ArchiveAhead as `archive` does. Another object is inspected by the next try.
        """
        stored = await self._find_object(argument.job_id)
        if stored and (stored.sha256, stored.bytes) == (argument.sha256, argument.bytes):
            return True
        if (there := _upload_of(stored)) >= origin.upload:
            async with self._pool.acquire() as connection:
                if await logs.withdraw_upload(connection, argument.job_id, origin.upload):
                    raise logs.ahead(argument.job_id, there)
        return False

    @activity.defn(name=VERIFY)
    async def verify(self, argument: ArchiveInput) -> Verdict:
        """Read the archived object back and compare its length and SHA-256 with the content's.

        The steps in it are stored on success, so that it is read only once.
        """
        reader = StepReader()
        async with heartbeating():
            found = await self._archive.digest(argument.job_id, reader.feed)
            reader.feed(b"", last=True)
            if found is None:
                metrics.ARCHIVE_MISMATCHES.inc()
                return Verdict(ok=False, reason="verify: the archived object is missing")
            if (found.sha256, found.bytes) != (argument.sha256, argument.bytes):
                metrics.ARCHIVE_MISMATCHES.inc()
                return Verdict(
                    ok=False,
                    reason=f"verify: archived {found.bytes} bytes with SHA-256 {found.sha256}, "
                    f"not {argument.bytes} with {argument.sha256}",
                )
            async with self._pool.acquire() as connection:
                verified = await logs.mark_verified(
                    connection,
                    argument.job_id,
                    argument.sha256,
                    reader.steps,
                    None
                    if self._archive.conditions.are_enforced
                    else self._archive.longest_request,
                )
                if verified is None:
                    return Verdict(ok=False, replaced=True)
                # After the commit: a hold placed before it did not see the content as verified.
                held = await holds.read(connection, argument.job_id)
                if spans.is_sampled(spans.of_log(argument.job_id)):
                    row = await reading.find(connection, argument.job_id)
                    tracing.verified(row, reader.steps)
            if held:
                await self._keep(argument.job_id)
        metrics.verified(argument.bytes, verified)
        return Verdict(ok=True, settles_seconds=verified.settles_seconds)

    @activity.defn(name=CHECK_ARCHIVE)
    async def check_archive(self, argument: ArchiveInput) -> bool:
        """Check that the archive still holds the verified content; otherwise unmark it in the row.

        For logs whose object may have been changed after its verification: by a deletion of earlier
        text, or, where the store ignores conditions, by an earlier upload.
        """
        job_id, expected = argument.job_id, Digest(argument.sha256, argument.bytes)
        async with heartbeating():
            stored = await self._find_object(job_id)
            is_intact = stored is not None and (stored.sha256, stored.bytes) == expected
            if stored is not None and not is_intact:
                is_intact = await self._archive.digest(job_id, lambda _: None) == expected
            mark = logs.mark_settled if is_intact else logs.mark_unverified
            async with self._pool.acquire() as connection:
                await mark(connection, job_id, argument.sha256)
        if not is_intact:
            metrics.ARCHIVE_MISMATCHES.inc()
            log.warning("archived_object_changed", job_id=job_id, sha256=argument.sha256)
        return is_intact

    async def _keep(self, job_id: int) -> None:
        """Copy a held log's archived object; delete the copy if the hold ended meanwhile."""
        await self._archive.copy_to_hold(job_id)
        async with self._pool.acquire() as connection:
            held = await holds.read(connection, job_id)
        if not held:
            await self._archive.delete_hold_copies(job_id)

    @activity.defn(name=RESTORE)
    async def restore(self, job_id: int) -> None:
        """Read purged content back into the row, to merge late parts into it."""
        async with heartbeating(), self._restores, self._pool.acquire() as connection:
            archived = self._archive.stream(job_id)
            try:
                with _size_limit(job_id):
                    await aggregation.restore_content(connection, job_id, archived)
            except NotArchived as error:
                if (await reading.find(connection, job_id)).expired_at:
                    return  # expired meanwhile
                raise PartsGone(
                    f"job {job_id}: the parts of its content were dropped, and {error}"
                ) from error

    @activity.defn(name=DELETE_ARCHIVE)
    async def delete_archive(self, job_id: int) -> None:
        """Delete the archived object of a log whose text was replaced, and record the deletion.

        The row holds the pending deletion until then. So a lost or duplicated signal does no harm,
        and a workflow that was reset deletes nothing that was archived since, nor an object that a
        later state of the database wrote. Runs again after the longest request time, to delete what
        an upload that was delayed until then has written.
        """
        async with heartbeating():
            async with self._pool.acquire() as connection:
                uploads = await logs.pending_deletion(connection, job_id)
            if uploads is None:
                return
            stored = await self._find_object(job_id)
            is_outdated = stored is not None and _upload_of(stored) <= uploads
            if stored and is_outdated:
                await self._archive.delete(job_id, stored.etag)
                if await self._find_object(job_id):
                    raise ComponentError(
                        f"job {job_id}: the archived object still exists after its deletion"
                    )
            async with self._pool.acquire() as connection:
                await logs.mark_archive_deleted(
                    connection, job_id, self._archive.longest_request, found=is_outdated
                )

    async def _find_object(self, job_id: int) -> ObjectInfo | None:
        try:
            return await self._archive.head(job_id)
        except NotArchived:
            return None


@contextmanager
def _size_limit(job_id: int) -> Iterator[None]:
    try:
        yield
    except asyncpg.ProgramLimitExceededError as error:
        raise ContentTooLarge(f"job {job_id}: {error}") from error


def _upload_of(stored: ObjectInfo | None) -> int:
    """The number of the upload that wrote an object; 0 if unknown."""
    return Origin.read(stored.origin).upload if stored and stored.origin else 0
