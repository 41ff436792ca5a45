"""The activity of the sweep: gives orphaned logs a workflow. Idempotent, also concurrently."""

import asyncio
from collections import Counter

import asyncpg
import structlog
from temporalio import activity

from activities.heartbeat import heartbeating
from activities.log_workflows import LogWorkflows
from activities.metrics import SWEPT_LOGS
from activities.types import SWEEP_PAGE, SweepPage, SweepPageInput
from db.pending import PendingLog, find_pending, mark_empty
from logflume.errors import ComponentError

log = structlog.get_logger()

CONCURRENCY = 16


class SweepActivities:
    """Compares unfinished logs in Postgres with the workflows in Temporal."""

    def __init__(self, pool: asyncpg.Pool, workflows: LogWorkflows) -> None:
        self._pool = pool
        self._workflows = workflows

    @activity.defn(name=SWEEP_PAGE)
    async def sweep_page(self, argument: SweepPageInput) -> SweepPage:
        """Find a page of unfinished logs; start or signal their workflows, and mark empty logs."""
        async with heartbeating():
            async with self._pool.acquire() as connection:
                logs = await find_pending(
                    connection,
                    argument.after,
                    argument.quiet_seconds,
                    argument.purge_seconds,
                    argument.logs,
                )
            running = await self._workflows.phases({one.job_id for one in logs})
            counts = Counter[str]()
            limit = asyncio.Semaphore(CONCURRENCY)

            async def process(one: PendingLog) -> None:
                async with limit:
                    counts[await self._process(one, running=one.job_id in running)] += 1

            await asyncio.gather(*(process(one) for one in logs))
        for result, number in counts.items():
            SWEPT_LOGS.labels(result).inc(number)
        after = logs[-1].id if len(logs) == argument.logs else 0
        return SweepPage(found=len(logs), after=after, **counts)

    async def _process(self, one: PendingLog, *, running: bool) -> str:
        """Start or signal the workflow of one log; returns the name of the count."""
        try:
            if one.outdated:
                sent = await self._workflows.ensure_replaced(one.job_id, running=running)
                return "signalled" if sent else "running"
            if running:
                sent = one.ended and await self._workflows.ensure_ended(one.job_id)
                return "signalled" if sent else "running"
            if one.bare:
                async with self._pool.acquire() as connection:
                    return "emptied" if await mark_empty(connection, one.job_id) else "failed"
            started = await self._workflows.start(one.job_id, one.heard_at, one.archived_at)
        except ComponentError as error:  # must not delay the other logs
            log.warning("sweep_log_failed", job_id=one.job_id, log_id=one.id, error=str(error))
            return "failed"
        log.info("orphaned_log_found", job_id=one.job_id, log_id=one.id, started=started)
        return "started" if started else "running"
