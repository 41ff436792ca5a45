"""The activity of the sweep: brings logs back to a workflow. It may run twice, also at once."""

import asyncio
from collections import Counter
from collections.abc import Collection
from datetime import datetime
from typing import Protocol

import asyncpg
import structlog
from temporalio import activity
from temporalio.exceptions import TemporalError

from activities.heartbeat import beating
from activities.metrics import SWEPT_LOGS
from activities.types import SWEEP_PAGE, SweepOrder, SweepPage
from db.pending import Unfinished, find_unfinished, mark_empty

log = structlog.get_logger()

AT_ONCE = 16


class LogWorkflows(Protocol):
    """What the sweep needs of the logs' workflows."""

    async def running(self, job_ids: Collection[int]) -> set[int]:
        """Which of these jobs' logs have a workflow that runs."""

    async def take_up(self, job_id: int, heard_at: datetime, verified_at: datetime | None) -> bool:
        """Start a workflow that looks at once; False where one runs, which hears nothing of it."""

    async def tell_replaced(self, job_id: int, *, running: bool) -> bool:
        """Tell that content was written whole; False where the one that runs knows."""

    async def tell_ended(self, job_id: int) -> bool:
        """Tell that the final part is there; False where the one that runs knows."""


class SweepActivities:
    """What the sweep asks of Postgres and of Temporal."""

    def __init__(self, pool: asyncpg.Pool, workflows: LogWorkflows) -> None:
        self._pool = pool
        self._workflows = workflows

    @activity.defn(name=SWEEP_PAGE)
    async def sweep_page(self, order: SweepOrder) -> SweepPage:
        """Find unfinished logs and see to it that each has a workflow that knows."""
        async with beating():
            async with self._pool.acquire() as connection:
                logs = await find_unfinished(
                    connection, order.after, order.quiet_seconds, order.purge_seconds, order.logs
                )
            running = await self._workflows.running({one.job_id for one in logs})
            counts = Counter[str]()
            limit = asyncio.Semaphore(AT_ONCE)

            async def see_to(one: Unfinished) -> None:
                async with limit:
                    counts[await self._see_to(one, running=one.job_id in running)] += 1

            await asyncio.gather(*(see_to(one) for one in logs))
        for result, number in counts.items():
            SWEPT_LOGS.labels(result).inc(number)
        after = logs[-1].id if len(logs) == order.logs else 0
        return SweepPage(found=len(logs), after=after, **counts)

    async def _see_to(self, one: Unfinished, *, running: bool) -> str:
        """Do what one log needs; returns under which name that counts."""
        try:
            if one.outdated:
                told = await self._workflows.tell_replaced(one.job_id, running=running)
                return "told" if told else "running"
            if running:
                told = one.ended and await self._workflows.tell_ended(one.job_id)
                return "told" if told else "running"
            if one.bare:
                async with self._pool.acquire() as connection:
                    return "emptied" if await mark_empty(connection, one.job_id) else "failed"
            started = await self._workflows.take_up(one.job_id, one.heard_at, one.archived_at)
        except TemporalError as error:  # the others must not wait for this one
            log.warning("sweep_failed", job_id=one.job_id, log_id=one.id, error=str(error))
            return "failed"
        log.info("log_taken_up", job_id=one.job_id, log_id=one.id, started=started)
        return "started" if started else "running"
