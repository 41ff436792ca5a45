"""The activity of the sweep: gives orphaned logs a workflow. Idempotent, also concurrently."""

import asyncio
import time
from collections import Counter

import asyncpg
import structlog
from temporalio import activity

from activities.heartbeat import heartbeating
from activities.log_workflows import LogWorkflows
from activities.metrics import SWEPT_LOGS, TIMELINE_CHANGED_AT, TIMELINE_CHANGES
from activities.types import SWEEP_PAGE, SweepPage, SweepPageInput, Timeline
from db.connect import Connection
from db.pending import PendingLog, find_pending, mark_empty
from db.timeline import read_timeline
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
                timeline = await _watch_timeline(connection, argument.timeline)
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
        return SweepPage(found=len(logs), after=after, timeline=timeline, **counts)

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


async def _watch_timeline(connection: Connection, known: Timeline) -> Timeline:
    """Report it if Postgres has another timeline than at the last sweep."""
    try:
        found = await read_timeline(connection)
    except asyncpg.PostgresError as error:
        log.warning("timeline_unknown", error=str(error), next="a failover may go unnoticed")
        return known
    is_changed = known.id not in {"", found}
    if is_changed:
        log.error(
            "timeline_changed",
            before=known.id,
            after=found,
            next="another server or a restored backup may lack acknowledged parts: run "
            "`logflume reconcile --restored-to TIME` (docs/failover.md)",
        )
        TIMELINE_CHANGES.inc()
    known = Timeline(found, time.time() if is_changed else known.changed_at)
    TIMELINE_CHANGED_AT.set(known.changed_at)
    return known
