"""The sweep: finds orphaned logs, which need work but have no workflow that tracks them.

A drain or web process that crashes before it signals leaves such logs behind, and so does the loss
of Temporal. Each round handles a bounded number of logs; the next one continues after them.
"""

from dataclasses import dataclass

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from activities.types import SWEEP_PAGE, SweepPage, SweepPageInput
    from workflows.policies import HEARTBEAT, RETRIES, SWEEP_TIME

# Also the number of workflows in one query to Temporal.
PAGE_LOGS = 100


@dataclass(frozen=True)
class SweepInput:
    """Input of a sweep; see the settings `LOGFLUME_SWEEP__*`.

    `purge_seconds` is the lifecycle's: a verified log waits for that long before its purge.
    """

    after_seconds: float
    purge_seconds: float
    logs: int


@dataclass(frozen=True)
class SweepResult(SweepPage):
    """What one sweep did, over all its pages; the next sweep starts after the id `after`."""

    pages: int = 0


@workflow.defn
class Sweep:
    """One round of the sweep."""

    @workflow.run
    async def run(self, options: SweepInput) -> SweepResult:
        """Process unfinished logs page by page, starting where the last round stopped."""
        last: SweepResult | None = workflow.get_last_completion_result(SweepResult)
        result = SweepResult(after=last.after, timeline=last.timeline) if last else SweepResult()
        while result.found < options.logs:
            result = _add(result, await self._sweep_page(result, options))
            if not result.after:
                break
        workflow.set_current_details(_summary(result))
        return result

    async def _sweep_page(self, result: SweepResult, options: SweepInput) -> SweepPage:
        page: SweepPage = await workflow.execute_activity(
            SWEEP_PAGE,
            SweepPageInput(
                after=result.after,
                logs=min(PAGE_LOGS, options.logs - result.found),
                quiet_seconds=options.after_seconds,
                purge_seconds=options.purge_seconds,
                timeline=result.timeline,
            ),
            result_type=SweepPage,
            start_to_close_timeout=SWEEP_TIME,
            heartbeat_timeout=HEARTBEAT,
            retry_policy=RETRIES,
            summary=f"logs after id {result.after}",
        )
        return page


def _add(result: SweepResult, page: SweepPage) -> SweepResult:
    return SweepResult(
        found=result.found + page.found,
        running=result.running + page.running,
        started=result.started + page.started,
        signalled=result.signalled + page.signalled,
        emptied=result.emptied + page.emptied,
        failed=result.failed + page.failed,
        pages=result.pages + 1,
        after=page.after,
        timeline=page.timeline,
    )


def _summary(result: SweepResult) -> str:
    return (
        f"**{result.found} unfinished logs**: {result.running} left to their workflow, "
        f"{result.started} workflows started, {result.signalled} signalled again, "
        f"{result.emptied} without parts, {result.failed} failed"
    )
