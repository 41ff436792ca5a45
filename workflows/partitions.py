"""Maintenance of the partitions of parts: made ahead, emptied of what must stay, dropped.

One run does what is due and ends; a schedule starts the next. What it cannot get a lock for is
tried again, for long if need be, and left to the next run after that.
"""

from typing import Any

from temporalio import workflow
from temporalio.exceptions import ActivityError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from activities.types import (
        ANALYZE_PARTS,
        DROP_PARTITION,
        FIND_EXPIRED,
        MAKE_PARTITIONS,
        RESCUE_PARTS,
        RESCUE_STRAYS,
        DropOrder,
        Made,
        PartitionOptions,
        Rescued,
    )
    from workflows.policies import HEARTBEAT, LOCK_PATIENCE, LOCK_RETRIES, RESCUE_TIME, reason
    from workflows.types import PARTITION_MAINTENANCE, PARTITION_STATE, MaintenanceReport

# How often a partition may turn out to hold unfinished logs again after they were moved.
ROUNDS = 10


@workflow.defn(name=PARTITION_MAINTENANCE)
class PartitionMaintenance:
    """One maintenance of the partitions."""

    def __init__(self) -> None:
        self._report = MaintenanceReport()

    @workflow.run
    async def run(self, options: PartitionOptions) -> MaintenanceReport:
        """Make, rescue and drop what is due; what failed stands in the report."""
        report = self._report
        blocked = await self._make(options)
        await self._rescue_strays()
        if blocked and report.rescued_logs:
            blocked = await self._make(options)
        report.errors += [f"{MAKE_PARTITIONS}: parts in the way of {begin}" for begin in blocked]
        await self._drop_expired(options)
        if report.made or report.dropped or report.rescued_logs:
            await self._try(ANALYZE_PARTS, options, None, "statistics for the planner")
        self._show("done")
        workflow.upsert_search_attributes([PARTITION_STATE.value_set(report.state)])
        return report

    async def _make(self, options: PartitionOptions) -> list[str]:
        self._show("making partitions")
        found: Made = await self._try(MAKE_PARTITIONS, options, Made, "ahead") or Made()
        self._report.made += found.made
        return found.blocked

    async def _rescue_strays(self) -> None:
        self._show("emptying the default partition")
        self._count(await self._try(RESCUE_STRAYS, None, Rescued, "the default partition"))

    async def _drop_expired(self, options: PartitionOptions) -> None:
        report = self._report
        report.left = await self._try(FIND_EXPIRED, options, list[str], "") or []
        # The oldest first and none without those before it: a log whose first part is there has
        # all its parts.
        while report.left:
            self._show(f"dropping {report.left[0]}")
            if not await self._drop(DropOrder(report.left[0], options)):
                return
            report.dropped.append(report.left.pop(0))

    async def _drop(self, order: DropOrder) -> bool:
        for _ in range(ROUNDS):
            rescued = await self._try(RESCUE_PARTS, order.name, Rescued, order.name)
            if rescued is None:
                return False
            self._count(rescued)
            dropped = await self._try(DROP_PARTITION, order, bool, order.name)
            if dropped is None:
                return False
            if dropped:
                return True
        self._report.errors.append(f"{order.name}: logs with parts in it go on being unfinished")
        return False

    async def _try(
        self, activity: str, argument: Any, result_type: type | None, summary: str
    ) -> Any:
        """Run an activity until it succeeds; if it never does: None, its error in the report."""
        try:
            return await workflow.execute_activity(
                activity,
                args=[] if argument is None else [argument],
                result_type=result_type,
                summary=summary or None,
                heartbeat_timeout=HEARTBEAT,
                start_to_close_timeout=RESCUE_TIME,
                schedule_to_close_timeout=(
                    RESCUE_TIME if result_type is Rescued else LOCK_PATIENCE
                ),
                retry_policy=LOCK_RETRIES,
            )
        except ActivityError as error:
            if is_cancelled_exception(error):
                raise
            self._report.errors.append(reason(error))
            return None

    def _count(self, rescued: Rescued | None) -> None:
        if rescued is not None:
            self._report.rescued_parts += rescued.parts
            self._report.rescued_logs += rescued.logs

    def _show(self, doing: str) -> None:
        report = self._report
        lines = [
            f"**{doing}**",
            f"- made: {', '.join(report.made) or 'none'}",
            f"- dropped: {', '.join(report.dropped) or 'none'}",
            f"- left: {', '.join(report.left) or 'none'}",
            f"- rescued: {report.rescued_parts} parts of {report.rescued_logs} logs",
            *(f"- error: {error}" for error in report.errors),
        ]
        workflow.set_current_details("\n".join(lines))
