"""Temporal schedules: creates, updates, checks and removes them."""

from collections.abc import Awaitable, Callable
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

from workflows.client.connection import temporal_errors


@dataclass(frozen=True)
class Recurring:
    """A workflow that a schedule starts at an interval, one run at a time.

    `name`: id of the schedule and prefix of the ids of its runs. `every`: counted from midnight UTC
    if it divides a day. `catch_up`: how late a run that Temporal missed may still start.
    """

    name: str
    workflow: Callable[..., Any]
    argument: Any
    summary: str
    every: timedelta
    catch_up: timedelta


async def apply(client: Client, task_queue: str, wanted: Recurring) -> bool:
    """Create or update a schedule; a paused one stays paused. True if it is new.

    Raises:
        ComponentError: Temporal is unreachable or refuses.
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

    def update(current: ScheduleUpdateInput) -> ScheduleUpdate:
        return ScheduleUpdate(replace(schedule, state=current.description.schedule.state))

    async with temporal_errors(client):
        try:
            await client.create_schedule(wanted.name, schedule)
        except ScheduleAlreadyRunningError:
            await client.get_schedule_handle(wanted.name).update(update)
            return False
    return True


async def exists(client: Client, name: str) -> bool:
    """Check whether a schedule exists.

    Raises:
        ComponentError: Temporal is unreachable or refuses.
    """
    return await _found(client, client.get_schedule_handle(name).describe())


async def remove(client: Client, name: str) -> None:
    """Remove a schedule, if it exists; a run that is under way continues.

    Raises:
        ComponentError: Temporal is unreachable or refuses.
    """
    await _found(client, client.get_schedule_handle(name).delete())


async def _found(client: Client, call: Awaitable[object]) -> bool:
    """Await a call on a schedule; False if there is no such schedule."""
    async with temporal_errors(client):
        try:
            await call
        except RPCError as error:
            if error.status != RPCStatusCode.NOT_FOUND:
                raise
            return False
    return True
