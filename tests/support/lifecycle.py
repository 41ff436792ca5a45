"""A log's life as its workflow leads it, a step at a time, without Temporal."""

from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

import asyncpg
from temporalio.testing import ActivityEnvironment

from activities.logs import ArchiveActivities, DatabaseActivities
from activities.types import (
    AGGREGATE,
    ARCHIVE,
    DELETE_ARCHIVE,
    PURGE,
    RESTORE,
    VERIFY,
    AggregateInput,
    ArchiveInput,
)
from logflume.archive.store import Archive
from logflume.domain import MAX_LOG_BYTES, Content
from logflume.errors import NotArchived


def activities_of(
    pool: asyncpg.Pool, archive: Archive
) -> dict[str, Callable[..., Coroutine[Any, Any, Any]]]:
    """The activities of a log's life, by name."""
    database, worker = DatabaseActivities(pool), ArchiveActivities(pool, archive)
    return {
        AGGREGATE: database.aggregate,
        PURGE: database.purge,
        ARCHIVE: worker.archive,
        VERIFY: worker.verify,
        RESTORE: worker.restore,
        DELETE_ARCHIVE: worker.delete_archive,
    }


class Life:
    """What the workflow was told of its log, and what it does next."""

    def __init__(self, pool: asyncpg.Pool, archive: Archive, job_id: int) -> None:
        self.job_id = job_id
        self.made = Content()
        self.next = AGGREGATE
        self.is_over = False  # the last step was the last there is to do
        self._force, self._restore = True, False
        self._archive = archive
        self._activities = activities_of(pool, archive)

    def look_again(self, *, force: bool = True, restore: bool = False) -> None:
        """Begin anew, as after a signal; with `restore` as after the one to archive again."""
        self.next, self._force, self._restore = AGGREGATE, force, restore

    @property
    def order(self) -> Any:
        """What the next activity is given."""
        if self.next == AGGREGATE:
            return AggregateInput(
                self.job_id, MAX_LOG_BYTES, force=self._force, restore=self._restore
            )
        if self.next in {RESTORE, DELETE_ARCHIVE}:
            return self.job_id
        return ArchiveInput(self.job_id, self.made.sha256, self.made.bytes, self.made.parts)

    async def step(self) -> None:
        """Run the next activity, and find out which comes after it."""
        self.is_over = False
        activity = self._activities[self.next]
        answer = await ActivityEnvironment().run(activity, self.order)
        if self.next == AGGREGATE:
            self.made = answer
            self.next = self._after_aggregation()
            self.is_over = self.next == AGGREGATE
        elif self.next == DELETE_ARCHIVE:
            self.next = ARCHIVE if self.made.sha256 else AGGREGATE
            self.is_over = self.next == AGGREGATE
        elif self.next == ARCHIVE:
            self.next = VERIFY if answer else AGGREGATE
        elif self.next == VERIFY:
            assert answer.ok or answer.replaced, answer.reason
            self.next = PURGE if answer.ok else AGGREGATE
        else:
            self.is_over = self.next == PURGE and answer
            self.next = AGGREGATE

    def _after_aggregation(self) -> str:
        if self.made.needs_archived:
            return RESTORE
        self._force, self._restore = True, False
        if self.made.archive_outdated:
            return DELETE_ARCHIVE
        if not self.made.sha256 or self.made.purged:
            return AGGREGATE
        return PURGE if self.made.archived else ARCHIVE

    async def go_on(self) -> None:
        """Go on from the next step to the end, as the workflow does that hears of nothing new."""
        self.is_over = False
        while not self.is_over:
            # A session of a worker that died may hold its locks for a moment: tried again.
            with suppress(asyncpg.LockNotAvailableError):
                await self.step()

    async def until(self, step: str) -> None:
        """Go on until this step is the next."""
        while self.next != step:
            await self.step()

    async def archived(self) -> bytes | None:
        """What lies in the archive."""
        try:
            return b"".join([piece async for piece in self._archive.stream(self.job_id)])
        except NotArchived:
            return None
