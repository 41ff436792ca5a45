"""A worker with a changed lifecycle, as in docs/upgrading.md; run as a module."""

from temporalio import workflow

from workflows.lifecycle import LogLifecycle
from workflows.lifecycle_types import LIFECYCLE, LifecycleInput, Outcome
from workflows.partitions import PartitionMaintenance
from workflows.sweep import Sweep


@workflow.defn(name=LIFECYCLE)
class Careless(LogLifecycle):
    """Sleeps once more before it settles: a command that current histories lack."""

    @workflow.init
    def __init__(self, start: LifecycleInput) -> None:
        super().__init__(start)

    @workflow.run
    async def run(self, start: LifecycleInput) -> Outcome:
        return await super().run(start)

    async def _settle(self) -> None:
        await workflow.sleep(0.1)
        await super()._settle()


@workflow.defn(name=LIFECYCLE)
class Upgraded(LogLifecycle):
    """The same, behind a patch."""

    @workflow.init
    def __init__(self, start: LifecycleInput) -> None:
        super().__init__(start)

    @workflow.run
    async def run(self, start: LifecycleInput) -> Outcome:
        return await super().run(start)

    async def _settle(self) -> None:
        if workflow.patched("settle-twice"):
            await workflow.sleep(0.1)
        await super()._settle()


if __name__ == "__main__":
    from logflume_cli import worker

    worker.WORKFLOWS = (Upgraded, PartitionMaintenance, Sweep)  # type: ignore[assignment,attr-defined]
    worker.worker([])
