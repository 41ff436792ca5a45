"""The activity of a backfill: tells logs' workflows, and follows the logs to their ends.

It may run again: logs told since its last heartbeat are then told twice, which harms none.
"""

import asyncio
from collections.abc import Collection
from datetime import datetime
from typing import Literal, Protocol

import asyncpg
import structlog
from temporalio import activity
from temporalio.converter import value_to_type
from temporalio.exceptions import TemporalError

from activities.heartbeat import beating
from activities.types import BACKFILL_PAGE, BackfillOrder, BackfillPage, Failure, Followed
from db import maintenance
from db.backfill import Found, Kind, Stretch, find_in_ranges, find_of_kind, follow

log = structlog.get_logger()

AT_ONCE = 16
# Logs found by one query, and workflows that Temporal is asked for at once.
PAGE_LOGS = 100
# After so long the workflow hears how far it is, and may be paused.
PAGE_SECONDS = 10.0
POLL_SECONDS = 0.2
# How often Temporal's lists are asked which of the logs are stuck.
LOOK_SECONDS = 2.0
REASON_CHARACTERS = 200
MAX_FAILURES = 100
STUCK = "stuck"

Fate = Literal["pending", "left", "empty"]


class LogWorkflows(Protocol):
    """What a backfill needs of the logs' workflows."""

    async def phases(self, job_ids: Collection[int]) -> dict[int, str]:
        """Which of these jobs' logs have a workflow that runs, and its lasting phase."""

    async def ask(self, job_id: int) -> tuple[str, str]:
        """The phase of a log's workflow just now, and its last error."""

    async def take_up(self, job_id: int, heard_at: datetime, verified_at: datetime | None) -> bool:
        """Start a workflow that looks at once; False where one runs, which hears nothing of it."""

    async def archive_again(self, job_id: int) -> None:
        """Have a log archived again, or go on where it is stuck."""


class BackfillActivities:
    """What a backfill asks of Postgres and of Temporal."""

    def __init__(self, pool: asyncpg.Pool, workflows: LogWorkflows) -> None:
        self._pool = pool
        self._workflows = workflows

    @activity.defn(name=BACKFILL_PAGE)
    async def backfill_page(self, order: BackfillOrder) -> BackfillPage:
        """Find logs, tell their workflows, and follow those told; ends after some seconds."""
        page = BackfillPage(order.after, order.more, order.pending)
        for told in activity.info().heartbeat_details:  # by a try before this one
            page = value_to_type(BackfillPage, told)
        async with beating(lambda: page):
            await _Page(self._pool, self._workflows, order, page).run()
        return page


class _Page:
    def __init__(
        self,
        pool: asyncpg.Pool,
        workflows: LogWorkflows,
        order: BackfillOrder,
        page: BackfillPage,
    ) -> None:
        self._pool = pool
        self._workflows = workflows
        self._order = order
        self._page = page

    async def run(self) -> None:
        clock = asyncio.get_running_loop().time
        begin = clock()
        looked = begin
        order, page = self._order, self._page
        while page.more if order.more else page.pending:
            await self._follow()
            if clock() - looked >= LOOK_SECONDS:
                await self._look_for_stuck()
                looked = clock()
            room = min(order.concurrency - len(page.pending), PAGE_LOGS, order.rate)
            told = await self._tell_more(room) if page.more and room > 0 else 0
            if clock() - begin >= PAGE_SECONDS:
                return
            await asyncio.sleep(max(told / order.rate, POLL_SECONDS))

    async def _follow(self) -> None:
        """Let go of logs that got to their ends, and of those that had their time."""
        page = self._page
        async with self._pool.acquire() as connection:
            await maintenance.check(connection)
            pending = [(one.job_id, one.since, one.again) for one in page.pending]
            states = await follow(connection, pending)
        done = {state.job_id for state in states if state.done}
        self._let_go(done)
        page.done += len(done)
        for state in states:
            if not state.done and state.waited > self._order.limit_seconds:
                await self._give_up(state.job_id)

    async def _give_up(self, job_id: int) -> None:
        try:
            phase, last_error = await self._workflows.ask(job_id)
            reason = f"{phase} after {self._order.limit_seconds:g} s: {last_error}".rstrip(": ")
        except TemporalError as error:
            reason = f"its workflow does not answer: {error}"
        self._fail(job_id, reason)

    async def _look_for_stuck(self) -> None:
        jobs = [one.job_id for one in self._page.pending]
        for start in range(0, len(jobs), PAGE_LOGS):
            phases = await self._workflows.phases(jobs[start : start + PAGE_LOGS])
            for job_id in (job for job, phase in phases.items() if phase == STUCK):
                # Lists lag behind: it may have been stuck before it was told to go on.
                phase, last_error = await self._workflows.ask(job_id)
                if phase == STUCK:
                    self._fail(job_id, f"stuck: {last_error}")

    async def _tell_more(self, count: int) -> int:
        """Find logs and tell their workflows; returns how many."""
        page = self._page
        found = await self._find(count)
        phases = await self._workflows.phases([one.job_id for one in found.logs])
        limit = asyncio.Semaphore(AT_ONCE)

        async def tell(one: Found) -> Fate | Failure:
            async with limit:
                return await self._tell(one, phases.get(one.job_id))

        fates = await asyncio.gather(*(tell(one) for one in found.logs))
        # From here without waiting: a heartbeat tells of all of it or of none.
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

    async def _find(self, count: int) -> Stretch:
        order, after = self._order, self._page.after
        async with self._pool.acquire() as connection:
            if order.ranges:
                return await find_in_ranges(connection, order.ranges, after, count)
            kind = Kind(order.kind, order.quiet_seconds, order.purge_seconds)
            return await find_of_kind(connection, kind, after, count)

    async def _tell(self, one: Found, phase: str | None) -> Fate | Failure:
        """Do what one log needs; `phase` is that of the workflow that runs, if one does."""
        if one.gone:
            return Failure(one.job_id, "its parts are gone: only the archive holds it")
        if one.bare:
            return "empty"
        try:
            if phase == STUCK or self._is_again(one):
                await self._workflows.archive_again(one.job_id)
                return "pending"
            if phase is not None:
                return "left"
            started = await self._workflows.take_up(one.job_id, one.heard_at, one.archived_at)
        except TemporalError as error:
            return Failure(one.job_id, f"its workflow could not be told: {error}")
        # A log that still waits for its final part ends in its own time.
        return "pending" if started and (one.ended or one.aggregated) else "left"

    def _is_again(self, one: Found) -> bool:
        return bool(self._order.ranges) and one.aggregated

    def _fail(self, job_id: int, reason: str) -> None:
        page = self._page
        self._let_go({job_id})
        page.failed += 1
        if len(page.failures) < MAX_FAILURES:
            page.failures.append(Failure(job_id, reason[:REASON_CHARACTERS]))
        log.warning("backfill_failed", job_id=job_id, reason=reason)

    def _let_go(self, job_ids: Collection[int]) -> None:
        page = self._page
        page.pending = [one for one in page.pending if one.job_id not in job_ids]
