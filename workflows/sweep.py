"""The sweep: finds logs that something is owed to and that no workflow knows of.

A drain or a web that died before its signal leaves such logs behind, and so does a Temporal that
was lost. Each round looks at a bounded number of them and the next goes on where it stopped.
"""

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from activities.types import SWEEP_PAGE, SweepOrder, SweepPage
    from workflows.policies import HEARTBEAT, RETRIES, SWEEP_TIME
    from workflows.types import SWEEP, SweepInput, Swept

# Temporal is asked for this many workflows at once.
PAGE_LOGS = 100


@workflow.defn(name=SWEEP)
class Sweep:
    """One round."""

    @workflow.run
    async def run(self, options: SweepInput) -> Swept:
        """Look at unfinished logs page by page, from where the last round stopped."""
        last: Swept | None = workflow.get_last_completion_result(Swept)
        swept = Swept(after=last.after if last else 0)
        while swept.found < options.logs:
            swept = _sum(swept, await self._sweep_page(swept, options))
            if not swept.after:
                break
        workflow.set_current_details(_tell(swept))
        return swept

    async def _sweep_page(self, swept: Swept, options: SweepInput) -> SweepPage:
        order = SweepOrder(
            after=swept.after,
            logs=min(PAGE_LOGS, options.logs - swept.found),
            quiet_seconds=options.after_seconds,
            purge_seconds=options.purge_seconds,
        )
        page: SweepPage = await workflow.execute_activity(
            SWEEP_PAGE,
            order,
            result_type=SweepPage,
            start_to_close_timeout=SWEEP_TIME,
            heartbeat_timeout=HEARTBEAT,
            retry_policy=RETRIES,
            summary=f"logs after {swept.after}",
        )
        return page


def _sum(swept: Swept, page: SweepPage) -> Swept:
    return Swept(
        found=swept.found + page.found,
        running=swept.running + page.running,
        started=swept.started + page.started,
        told=swept.told + page.told,
        emptied=swept.emptied + page.emptied,
        failed=swept.failed + page.failed,
        pages=swept.pages + 1,
        after=page.after,
    )


def _tell(swept: Swept) -> str:
    return (
        f"**{swept.found} unfinished logs**: {swept.running} left to their workflows, "
        f"{swept.started} given one, {swept.told} told of their end or of replaced content, "
        f"{swept.emptied} empty, {swept.failed} failed"
    )
