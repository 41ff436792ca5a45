"""`logflume schedules`: creates or updates the Temporal schedules."""

import asyncio
from datetime import timedelta

import click

from logflume.settings import Settings, load_settings
from logflume_cli.options import partition_options, retention_input, sweep_input
from logflume_cli.output import json_option, print_json
from workflows.client.connection import connect_temporal
from workflows.client.schedules import Recurring, apply, remove
from workflows.partitions import PARTITION_MAINTENANCE_ID, PartitionMaintenance
from workflows.retention import RETENTION_ID, Retention
from workflows.sweep import Sweep

MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)


def recurring(settings: Settings) -> list[Recurring]:
    """All schedules that the settings ask for."""
    rows = [
        Recurring(
            "sweep",
            Sweep.run,
            sweep_input(settings),
            "finds orphaned logs",
            every=timedelta(seconds=settings.sweep.every_seconds),
            catch_up=MINUTE,
        ),
        # Hourly, whatever a partition spans: what failed is retried an hour later.
        Recurring(
            PARTITION_MAINTENANCE_ID,
            PartitionMaintenance.run,
            partition_options(settings),
            "creates partitions ahead of time and drops expired ones",
            every=HOUR,
            catch_up=HOUR,
        ),
    ]
    if settings.retention.policies:
        rows.append(
            Recurring(
                RETENTION_ID,
                Retention.run,
                retention_input(settings),
                "deletes logs that the retention policies let expire",
                every=HOUR,
                catch_up=HOUR,
            )
        )
    return rows


async def apply_schedules(settings: Settings) -> list[tuple[Recurring, bool]]:
    """Create or update all schedules; returns them and whether each is new.

    Without a retention policy the schedule of retention is removed.

    Raises:
        ComponentError: Temporal is unreachable or refuses.
    """
    client = await connect_temporal(settings.temporal)
    if not settings.retention.policies:
        await remove(client, RETENTION_ID)
    task_queue = settings.temporal.task_queue
    return [(row, await apply(client, task_queue, row)) for row in recurring(settings)]


@click.group()
def schedules() -> None:
    """Create or update the Temporal schedules."""


@schedules.command("apply")
@json_option
def apply_command(*, as_json: bool) -> None:
    """Create or update the schedules from the settings; idempotent.

    A paused schedule stays paused; without retention policies, that schedule is deleted. Run this
    after changing settings, and on a new Temporal server.
    `temporal schedule list`, `trigger`, `toggle` and `backfill` work on these schedules.
    """
    applied = asyncio.run(apply_schedules(load_settings()))
    if as_json:
        print_json(
            [
                {"name": row.name, "created": is_new, "every_seconds": row.every.total_seconds()}
                for row, is_new in applied
            ]
        )
        return
    for row, is_new in applied:
        verb = "created" if is_new else "updated"
        click.echo(f"{row.name}: {verb}, every {row.every.total_seconds():g} s")
