"""Workflows that run again and again: how Temporal's schedules are made to be as wanted."""

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from temporalio.client import (
    Client,
    Schedule,
    ScheduleActionStartWorkflow,
    ScheduleAlreadyRunningError,
    ScheduleIntervalSpec,
    ScheduleOverlapPolicy,
    SchedulePolicy,
    ScheduleSpec,
    ScheduleUpdate,
    ScheduleUpdateInput,
)
from temporalio.service import RPCError, RPCStatusCode


@dataclass(frozen=True)
class Recurring:
    """A workflow that runs again and again, one run at a time.

    `name` is the schedule's id and begins the ids of its runs. `every`, counted from midnight UTC
    where it divides a day. `catch_up`: how late a run may start that Temporal missed.
    """

    name: str
    workflow: str
    argument: Any
    summary: str
    every: timedelta
    catch_up: timedelta


async def apply(client: Client, task_queue: str, wanted: Recurring) -> bool:
    """Make a schedule, or make it as wanted; whether it is paused stays. True where it is new.

    Raises:
        RPCError, RuntimeError: Temporal is out of reach or refuses.
    """
    schedule = Schedule(
        action=ScheduleActionStartWorkflow(
            wanted.workflow,
            wanted.argument,
            id=wanted.name,
            task_queue=task_queue,
            static_summary=wanted.summary,
        ),
        spec=ScheduleSpec(intervals=[ScheduleIntervalSpec(every=wanted.every)]),
        policy=SchedulePolicy(overlap=ScheduleOverlapPolicy.SKIP, catchup_window=wanted.catch_up),
    )

    def update(found: ScheduleUpdateInput) -> ScheduleUpdate:
        return ScheduleUpdate(replace(schedule, state=found.description.schedule.state))

    try:
        await client.create_schedule(wanted.name, schedule)
    except ScheduleAlreadyRunningError:
        await client.get_schedule_handle(wanted.name).update(update)
        return False
    return True


async def remove(client: Client, name: str) -> bool:
    """Remove a schedule; False where there is none. A run that is under way ends as it would.

    Raises:
        RPCError, RuntimeError: Temporal is out of reach or refuses.
    """
    try:
        await client.get_schedule_handle(name).delete()
    except RPCError as error:
        if error.status != RPCStatusCode.NOT_FOUND:
            raise
        return False
    return True
