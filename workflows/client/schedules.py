"""Temporal schedules: creates, updates, checks and removes them."""

from collections.abc import Callable
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

PAUSED = "is paused"


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
        action=_action(task_queue, wanted),
        spec=ScheduleSpec(intervals=[ScheduleIntervalSpec(every=wanted.every)]),
        policy=_policy(wanted),
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


def _action(task_queue: str, wanted: Recurring) -> ScheduleActionStartWorkflow:
    return ScheduleActionStartWorkflow(
        wanted.workflow,
        wanted.argument,
        id=wanted.name,
        task_queue=task_queue,
        static_summary=wanted.summary,
    )


def _policy(wanted: Recurring) -> SchedulePolicy:
    return SchedulePolicy(overlap=ScheduleOverlapPolicy.SKIP, catchup_window=wanted.catch_up)


async def difference(client: Client, task_queue: str, wanted: Recurring) -> str:
    """How a schedule differs from the wanted one, for people; empty if it does not.

    Raises:
        ComponentError: Temporal is unreachable or refuses.
    """
    async with temporal_errors(client):
        try:
            found = (await client.get_schedule_handle(wanted.name).describe()).schedule
        except RPCError as error:
            if error.status != RPCStatusCode.NOT_FOUND:
                raise
            return "does not exist"
        arguments = await client.data_converter.encode([wanted.argument])
    if found.state.paused:
        return f"{PAUSED} ({found.state.note or 'without a reason'})"
    expected, action = _action(task_queue, wanted), found.action
    is_same = (
        isinstance(action, ScheduleActionStartWorkflow)
        and [one.data for one in action.args] == [one.data for one in arguments]
        and (action.workflow, action.task_queue) == (expected.workflow, task_queue)
        and [one.every for one in found.spec.intervals] == [wanted.every]
        and found.policy == _policy(wanted)
    )
    return "" if is_same else "has other settings than these"


async def remove(client: Client, name: str) -> None:
    """Remove a schedule, if it exists; a run that is under way continues.

    Raises:
        ComponentError: Temporal is unreachable or refuses.
    """
    async with temporal_errors(client):
        try:
            await client.get_schedule_handle(name).delete()
        except RPCError as error:
            if error.status != RPCStatusCode.NOT_FOUND:
                raise
