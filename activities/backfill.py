"""The activity of a backfill: signals or starts logs' workflows, and follows them until done.

It is idempotent: logs signalled since its last heartbeat are signalled twice, without harm.
"""

import asyncio
from collections.abc import Collection
from typing import Literal

import asyncpg
import structlog
from temporalio import activity
from temporalio.converter import value_to_type

from activities.heartbeat import heartbeating
from activities.log_workflows import LogWorkflows
from activities.types import (
    BACKFILL_PAGE,
    BackfillPage,
    BackfillPageInput,
    Failure,
    Followed,
)
from db import maintenance
from db.backfill import BackfillLog, Kind, LogPage, check_progress, find_in_ranges, find_of_kind
from logflume.errors import ComponentError

log = structlog.get_logger()

CONCURRENCY = 16
# Most logs in one query to Postgres, and most workflows in one query to Temporal.
PAGE_LOGS = 100
# How often the workflow gets a progress report and may be paused.
PAGE_SECONDS = 10.0
POLL_SECONDS = 0.2
# How often Temporal is asked which of the logs are stuck.
STUCK_POLL_SECONDS = 2.0
REASON_CHARACTERS = 200
MAX_FAILURES = 100
STUCK = "stuck"

Fate = Literal["pending", "left", "empty"]


class BackfillActivities:
    """Finds logs in Postgres and re-drives their workflows."""

    def __init__(self, pool: asyncpg.Pool, workflows: LogWorkflows) -> None:
        self._pool = pool
        self._workflows = workflows

    @activity.defn(name=BACKFILL_PAGE)
    async def backfill_page(self, argument: BackfillPageInput) -> BackfillPage:
        """Find logs, signal their workflows and follow them; returns after some seconds."""
        page = BackfillPage(argument.after, argument.more, argument.pending)
        for details in activity.info().heartbeat_details:  # of the previous try
            page = value_to_type(BackfillPage, details)
        async with heartbeating(lambda: page):
            await _Page(self._pool, self._workflows, argument, page).run()
        return page


class _Page:
    def __init__(
        self,
        pool: asyncpg.Pool,
        workflows: LogWorkflows,
        argument: BackfillPageInput,
        page: BackfillPage,
    ) -> None:
        self._pool = pool
        self._workflows = workflows
        self._input = argument
        self._page = page

    async def run(self) -> None:
        clock = asyncio.get_running_loop().time
        started = polled = clock()
        argument, page = self._input, self._page
        while page.more if argument.more else page.pending:
            await self._follow()
            if clock() - polled >= STUCK_POLL_SECONDS:
                await self._fail_stuck()
                polled = clock()
            count = min(argument.concurrency - len(page.pending), PAGE_LOGS, argument.rate)
            signalled = await self._find_more(count) if page.more and count > 0 else 0
            if clock() - started >= PAGE_SECONDS:
                return
            await asyncio.sleep(max(signalled / argument.rate, POLL_SECONDS))

    async def _follow(self) -> None:
        """Count logs that are done, and fail those that exceeded their time limit."""
        page = self._page
        async with self._pool.acquire() as connection:
            await maintenance.check(connection)
            pending = [(one.job_id, one.since, one.again) for one in page.pending]
            states = await check_progress(connection, pending)
        done = {state.job_id for state in states if state.done}
        self._remove(done)
        page.done += len(done)
        for state in states:
            if not state.done and state.waited > self._input.limit_seconds:
                await self._fail_overdue(state.job_id)

    async def _fail_overdue(self, job_id: int) -> None:
        try:
            state = await self._workflows.state(job_id)
            limit = self._input.limit_seconds
            reason = f"{state.phase} after {limit:g} s: {state.last_error}".rstrip(": ")
        except ComponentError as error:
            reason = f"its workflow does not answer: {error}"
        self._fail(job_id, reason)

    async def _fail_stuck(self) -> None:
        jobs = [one.job_id for one in self._page.pending]
        for start in range(0, len(jobs), PAGE_LOGS):
            phases = await self._workflows.phases(jobs[start : start + PAGE_LOGS])
            for job_id in (job for job, phase in phases.items() if phase == STUCK):
                # The list lags: the log may have been resumed since.
                state = await self._workflows.state(job_id)
                if state.phase == STUCK:
                    self._fail(job_id, f"stuck: {state.last_error}")

    async def _find_more(self, count: int) -> int:
        """Find logs and signal or start their workflows; returns how many logs."""
        page = self._page
        found = await self._find(count)
        phases = await self._workflows.phases([one.job_id for one in found.logs])
        limit = asyncio.Semaphore(CONCURRENCY)

        async def process(one: BackfillLog) -> Fate | Failure:
            async with limit:
                return await self._process(one, phases.get(one.job_id))

        fates = await asyncio.gather(*(process(one) for one in found.logs))
        # No await below: a heartbeat must contain all of this or none of it.
        page.after, page.more = found.after, found.more
        page.found += len(found.logs) + len(found.unknown)
        for job_id in found.unknown:
            self._fail(job_id, "no log has this job id")
        for one, fate in zip(found.logs, fates, strict=True):
            match fate:
                case Failure():
                    self._fail(fate.job_id, fate.reason)
                case "pending":
                    page.pending.append(Followed(one.job_id, one.since, self._is_again(one)))
                case "left":
                    page.left += 1
                case "empty":
                    page.empty += 1
        return len(found.logs)

    async def _find(self, count: int) -> LogPage:
        argument, after = self._input, self._page.after
        async with self._pool.acquire() as connection:
            if argument.ranges:
                return await find_in_ranges(connection, argument.ranges, after, count)
            kind = Kind(argument.kind, argument.quiet_seconds, argument.purge_seconds)
            return await find_of_kind(connection, kind, after, count)

    async def _process(self, one: BackfillLog, phase: str | None) -> Fate | Failure:
        """Signal or start the workflow of one log; `phase`: None if no workflow is running."""
        if one.gone:
            return Failure(one.job_id, "its parts were dropped: only the archive has the log")
        if one.bare:
            return "empty"
        try:
            if phase == STUCK or self._is_again(one):
                await self._workflows.archive_again(one.job_id)
                return "pending"
            if phase is not None:
                return "left"
            started = await self._workflows.start(one.job_id, one.heard_at, one.archived_at)
        except ComponentError as error:
            return Failure(one.job_id, f"its workflow could not be signalled: {error}")
        # A log that still waits for its final part is not followed.
        return "pending" if started and (one.ended or one.aggregated) else "left"

    def _is_again(self, one: BackfillLog) -> bool:
        return bool(self._input.ranges) and one.aggregated

    def _fail(self, job_id: int, reason: str) -> None:
        page = self._page
        self._remove({job_id})
        page.failed += 1
        if len(page.failures) < MAX_FAILURES:
            page.failures.append(Failure(job_id, reason[:REASON_CHARACTERS]))
        log.warning("backfill_failed", job_id=job_id, reason=reason)

    def _remove(self, job_ids: Collection[int]) -> None:
        page = self._page
        page.pending = [one for one in page.pending if one.job_id not in job_ids]
