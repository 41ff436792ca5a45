"""Maintenance of the partitions of parts: creates new ones, empties and drops expired ones.

One run does what is due; a schedule starts the next. A lock that is unavailable is retried for an
hour and then left to the next run.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

from temporalio import workflow
from temporalio.common import SearchAttributeKey
from temporalio.exceptions import ActivityError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from activities.types import (
        ANALYZE_PARTS,
        CREATE_PARTITIONS,
        DROP_PARTITION,
        FIND_EXPIRED,
        RESCUE_PARTS,
        RESCUE_STRAYS,
        CreatedPartitions,
        DropInput,
        PartitionOptions,
        Rescued,
    )
    from workflows.policies import HEARTBEAT, LOCK_TIME, RESCUE_TIME, RETRIES, reason

PARTITION_MAINTENANCE_ID = "partition-maintenance"
PARTITION_STATE = SearchAttributeKey.for_keyword("PartitionState")
# A partition may receive parts of unfinished logs again after it was emptied: tries per run.
ROUNDS = 10


@dataclass
class MaintenanceReport:
    """What one run did.

    `created`: start times of new partitions. `dropped` and `left`: names of expired partitions
    that were dropped, and of those that could not be. `rescued_parts` of `rescued_logs` were moved
    to a newer partition. `errors`: what failed and is retried by the next run.
    """

    created: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    rescued_parts: int = 0
    rescued_logs: int = 0
    errors: list[str] = field(default_factory=list)

    @property
    def state(self) -> Literal["clean", "rescued", "left"]:
        """`left`: work was left undone; `rescued`: logs were unarchived for too long."""
        if self.left or self.errors:
            return "left"
        return "rescued" if self.rescued_logs else "clean"


@workflow.defn
class PartitionMaintenance:
    """One run of the maintenance."""

    def __init__(self) -> None:
        self._report = MaintenanceReport()

    @workflow.run
    async def run(self, options: PartitionOptions) -> MaintenanceReport:
        """Create, empty and drop partitions as due; failures go into the report."""
        report = self._report
        blocked = await self._create(options)
        await self._rescue_strays()
        if blocked and report.rescued_logs:
            blocked = await self._create(options)
        report.errors += [
            f"{CREATE_PARTITIONS}: the default partition has parts of {start}" for start in blocked
        ]
        await self._drop_expired(options)
        if report.created or report.dropped or report.rescued_logs:
            await self._try(ANALYZE_PARTS, options, None, "statistics for the planner")
        self._show("done")
        workflow.upsert_search_attributes([PARTITION_STATE.value_set(report.state)])
        return report

    async def _create(self, options: PartitionOptions) -> list[str]:
        self._show("creating partitions")
        created: CreatedPartitions = (
            await self._try(CREATE_PARTITIONS, options, CreatedPartitions, "ahead of time")
            or CreatedPartitions()
        )
        self._report.created += created.created
        return created.blocked

    async def _rescue_strays(self) -> None:
        self._show("emptying the default partition")
        self._count(await self._try(RESCUE_STRAYS, None, Rescued, "the default partition"))

    async def _drop_expired(self, options: PartitionOptions) -> None:
        report = self._report
        report.left = await self._try(FIND_EXPIRED, options, list[str], "") or []
        # Oldest first, none before its predecessors: so a log that still has its first part has
        # all of its parts.
        while report.left:
            self._show(f"dropping {report.left[0]}")
            if not await self._drop(DropInput(report.left[0], options)):
                return
            report.dropped.append(report.left.pop(0))

    async def _drop(self, argument: DropInput) -> bool:
        for _ in range(ROUNDS):
            rescued = await self._try(RESCUE_PARTS, argument.name, Rescued, argument.name)
            if rescued is None:
                return False
            self._count(rescued)
            dropped = await self._try(DROP_PARTITION, argument, bool, argument.name)
            if dropped is None:
                return False
            if dropped:
                return True
        self._report.errors.append(f"{argument.name}: still receives parts of unfinished logs")
        return False

    async def _try(
        self, activity: str, argument: Any, result_type: type | None, summary: str
    ) -> Any:
        """Run an activity; after all retries failed, report its error and return None."""
        try:
            return await workflow.execute_activity(
                activity,
                args=[] if argument is None else [argument],
                result_type=result_type,
                summary=summary or None,
                heartbeat_timeout=HEARTBEAT,
                start_to_close_timeout=RESCUE_TIME,
                schedule_to_close_timeout=RESCUE_TIME if result_type is Rescued else LOCK_TIME,
                retry_policy=RETRIES,
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
            f"- created: {', '.join(report.created) or 'none'}",
            f"- dropped: {', '.join(report.dropped) or 'none'}",
            f"- left: {', '.join(report.left) or 'none'}",
            f"- rescued: {report.rescued_parts} parts of {report.rescued_logs} logs",
            *(f"- error: {error}" for error in report.errors),
        ]
        workflow.set_current_details("\n".join(lines))
