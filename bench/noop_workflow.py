"""The least a workflow of four activities can be: what the lifecycle is measured against."""

from datetime import timedelta

from temporalio import activity, workflow


@activity.defn
async def nothing() -> None:
    """Do nothing."""


@workflow.defn
class Bare:
    """Four empty activities, one after another."""

    @workflow.run
    async def run(self) -> None:
        """Run them."""
        for _ in range(4):
            await workflow.execute_activity(nothing, start_to_close_timeout=timedelta(seconds=60))
