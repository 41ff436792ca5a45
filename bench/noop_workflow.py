"""A no-op workflow with four activities: the reference for lifecycles."""

from datetime import timedelta

from temporalio import activity, workflow


@activity.defn
async def nothing() -> None:
    """Do nothing."""


@workflow.defn
class Bare:
    """Runs four empty activities in sequence."""

    @workflow.run
    async def run(self) -> None:
        """Run the activities."""
        for _ in range(4):
            await workflow.execute_activity(nothing, start_to_close_timeout=timedelta(seconds=60))
