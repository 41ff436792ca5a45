"""Runs a log's activities in its workflow's order, step by step, without Temporal."""

from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

import asyncpg
from temporalio.testing import ActivityEnvironment

from activities.logs import ArchiveActivities, DatabaseActivities
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
)
from logflume.archive.store import Archive
from logflume.domain import MAX_LOG_BYTES, Content
from logflume.errors import NotArchived


def activities_of(
    pool: asyncpg.Pool, archive: Archive
) -> dict[str, Callable[..., Coroutine[Any, Any, Any]]]:
    """The activities of a log's lifecycle by name."""
    database, worker = DatabaseActivities(pool), ArchiveActivities(pool, archive)
    return {
        AGGREGATE: database.aggregate,
        PURGE: database.purge,
        ARCHIVE: worker.archive,
        VERIFY: worker.verify,
        CHECK_ARCHIVE: worker.check_archive,
        RESTORE: worker.restore,
        DELETE_ARCHIVE: worker.delete_archive,
    }


class LifecycleSteps:
    """The workflow's state of one log, and its next activity."""

    def __init__(self, pool: asyncpg.Pool, archive: Archive, job_id: int) -> None:
        self.job_id = job_id
        self.aggregated = Content()
        self.is_unsettled = False
        self.next = AGGREGATE
        self.is_over = False  # after the last activity of a pass
        self._force, self._restore = True, False
        self._archive = archive
        self._activities = activities_of(pool, archive)

    def restart(self, *, force: bool = True, restore: bool = False) -> None:
        """Start over as after a signal; with `restore` as after `archive_again`."""
        self.next, self._force, self._restore = AGGREGATE, force, restore

    @property
    def order(self) -> Any:
        """The input of the next activity."""
        if self.next == AGGREGATE:
            return AggregateInput(
                self.job_id, MAX_LOG_BYTES, force=self._force, restore=self._restore
            )
        if self.next in {RESTORE, DELETE_ARCHIVE}:
            return self.job_id
        return ArchiveInput(
            self.job_id, self.aggregated.sha256, self.aggregated.bytes, self.aggregated.parts
        )

    async def step(self) -> None:
        """Run the next activity and choose the one after it."""
        self.is_over = False
        activity = self._activities[self.next]
        answer = await ActivityEnvironment().run(activity, self.order)
        if self.next == AGGREGATE:
            self.aggregated = answer
            self.is_unsettled = answer.settles_seconds is not None
            self.next = self._after_aggregation()
            self.is_over = self.next == AGGREGATE
        elif self.next == DELETE_ARCHIVE:
            self.next = ARCHIVE if self.aggregated.sha256 else AGGREGATE
            self.is_over = self.next == AGGREGATE
        elif self.next == ARCHIVE:
            self.next = VERIFY if answer else AGGREGATE
        elif self.next == VERIFY:
            assert answer.ok or answer.replaced, answer.reason
            self.is_unsettled = answer.settles_seconds is not None
            self.next = self._purge() if answer.ok else AGGREGATE
        elif self.next == CHECK_ARCHIVE:
            self.next = PURGE if answer else AGGREGATE
        else:
            self.is_over = self.next == PURGE and answer
            self.next = AGGREGATE

    def _after_aggregation(self) -> str:
        if self.aggregated.needs_archived:
            return RESTORE
        self._force, self._restore = True, False
        if self.aggregated.archive_outdated:
            return DELETE_ARCHIVE
        if not self.aggregated.sha256 or self.aggregated.purged:
            return AGGREGATE
        return self._purge() if self.aggregated.archived else ARCHIVE

    def _purge(self) -> str:
        """The purge; before it, a check of the object that an earlier request may have changed."""
        return CHECK_ARCHIVE if self.is_unsettled else PURGE

    async def finish(self) -> None:
        """Run all remaining steps, as the workflow does when no signal arrives."""
        self.is_over = False
        while not self.is_over:
            # The session of a dead worker may hold its locks for a moment: retry.
            with suppress(asyncpg.LockNotAvailableError):
                await self.step()

    async def until(self, step: str) -> None:
        """Run steps until this one is next."""
        while self.next != step:
            await self.step()

    async def archived(self) -> bytes | None:
        """The archived bytes; None if there is no object."""
        try:
            return b"".join([piece async for piece in self._archive.stream(self.job_id)])
        except NotArchived:
            return None
