"""`logflume schedules`: what Temporal runs again and again."""

import asyncio
from datetime import timedelta

import click
from temporalio.service import RPCError

from activities.types import PartitionOptions
from logflume.domain import Policy
from logflume.errors import ComponentError
from logflume.settings import Settings, load_settings
from workflows.client import connection as temporal
from workflows.client.schedules import Recurring, apply, remove
from workflows.types import (
    PARTITION_MAINTENANCE,
    PARTITION_MAINTENANCE_ID,
    RETENTION,
    RETENTION_ID,
    SWEEP,
    RetentionInput,
    SweepInput,
)

MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)


def recurring(settings: Settings) -> list[Recurring]:
    """What runs again and again: one row for each schedule."""
    sweep = settings.sweep
    rows = [
        Recurring(
            "sweep",
            SWEEP,
            SweepInput(sweep.after_seconds, settings.lifecycle.purge_seconds, sweep.logs),
            "finds logs that no workflow knows of",
            every=timedelta(seconds=sweep.every_seconds),
            catch_up=MINUTE,
        ),
        # Hourly, whatever a partition holds: what could not be done now is done in an hour.
        Recurring(
            PARTITION_MAINTENANCE_ID,
            PARTITION_MAINTENANCE,
            PartitionOptions(**settings.partitions.model_dump()),
            "makes partitions ahead and drops old ones",
            every=HOUR,
            catch_up=HOUR,
        ),
    ]
    if policies := retention_policies(settings):
        rows.append(
            Recurring(
                RETENTION_ID,
                RETENTION,
                RetentionInput(policies, settings.retention.logs),
                "deletes what is older than the policies say",
                every=HOUR,
                catch_up=HOUR,
            )
        )
    return rows


def retention_policies(settings: Settings) -> list[Policy]:
    """The policies of retention, as the workflow knows them."""
    return [Policy(**policy.model_dump()) for policy in settings.retention.policies]


async def apply_schedules(settings: Settings) -> list[tuple[Recurring, bool]]:
    """Make all schedules as the settings want them; tells which are new.

    That of retention is removed where the settings have no policy.

    Raises:
        ComponentError: Temporal is out of reach or refuses.
    """
    client = await temporal.connect(settings.temporal)
    task_queue = settings.temporal.task_queue
    try:
        if not settings.retention.policies:
            await remove(client, RETENTION_ID)
        return [(row, await apply(client, task_queue, row)) for row in recurring(settings)]
    except (RPCError, RuntimeError) as error:
        raise ComponentError(f"{temporal.describe(settings.temporal)}: {error}") from error


async def check_schedules(settings: Settings) -> None:
    """Find out whether all schedules are there.

    Raises:
        ComponentError: one is missing, or Temporal is out of reach.
    """
    client = await temporal.connect(settings.temporal)
    for row in recurring(settings):
        try:
            await client.get_schedule_handle(row.name).describe()
        except RPCError as error:
            raise ComponentError(f"Schedule {row.name}: {error}.") from error


@click.group()
def schedules() -> None:
    """Set up what Temporal runs again and again."""


@schedules.command("apply")
def apply_command() -> None:
    """Make the schedules as the settings want them; safe to repeat.

    One that was paused stays paused. Run it after the settings changed, and on a new Temporal.
    `temporal schedule list`, `trigger`, `toggle` and `backfill` work on them.
    """
    for row, is_new in asyncio.run(apply_schedules(load_settings())):
        verb = "made" if is_new else "updated"
        click.echo(f"{row.name}: {verb}, every {row.every.total_seconds():g} s")
