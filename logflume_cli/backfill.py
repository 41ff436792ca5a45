"""`logflume backfill`: re-drives many logs through aggregation and archiving."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TypeVar

import click
import msgspec
from temporalio.client import Client

from activities.types import BACKFILL_KINDS
from logflume.settings import Settings, load_settings
from logflume_cli.duration import Duration
from logflume_cli.output import json_option, print_json
from logflume_cli.terminal import echo
from workflows.backfill import BackfillInput, job_ranges
from workflows.client.backfill import (
    backfill_status,
    cancel_backfill,
    pause_backfill,
    resume_backfill,
    start_backfill,
)
from workflows.client.connection import connect_temporal

T = TypeVar("T")


@click.group()
def backfill() -> None:
    """Run aggregation and archiving again for many logs; one backfill at a time."""


@backfill.command()
@click.argument("jobs", nargs=-1)
@click.option("--kind", type=click.Choice(BACKFILL_KINDS), help="Select unfinished logs.")
@click.option(
    "--concurrency",
    default=100,
    show_default=True,
    help="Maximum number of logs under way, at most 1000.",
)
@click.option(
    "--rate",
    default=20,
    show_default=True,
    help="Maximum number of logs started per second, at most 500.",
)
@click.option(
    "--limit",
    type=Duration(),
    default="10m",
    show_default=True,
    help="Report a log as failed after this time, e.g. 10m or 2h; its workflow continues.",
)
def start(jobs: tuple[str, ...], kind: str, concurrency: int, rate: int, limit: timedelta) -> None:
    """Start a backfill of JOBS: job ids (42) and ranges of them (1000-2000).

    Their logs are archived again from their parts, finished ones too; logs whose parts were dropped
    are reported as failed. With --kind instead of JOBS, it selects unfinished logs that have no
    workflow or a stuck one. not_archived: the current text was not uploaded; not_verified: also
    those without a verified archive; not_purged: also those overdue for purge.
    """
    settings = load_settings()
    options = BackfillInput(
        concurrency=concurrency,
        rate=rate,
        limit_seconds=limit.total_seconds(),
        quiet_seconds=settings.sweep.after_seconds,
        purge_seconds=settings.lifecycle.purge_seconds,
        jobs=list(jobs),
        kind=kind or "",
    )
    try:
        job_ranges(options)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    task_queue = settings.temporal.task_queue
    _call(settings, lambda client: start_backfill(client, task_queue, options))
    click.echo("started; `logflume backfill status` shows its progress")


@backfill.command()
@json_option
def status(*, as_json: bool) -> None:
    """Show progress or result of the last backfill, and which logs failed."""
    name, progress = _call(load_settings(), backfill_status)
    if as_json:
        print_json({"status": name, **msgspec.to_builtins(progress)})
        return
    echo(f"{name}: {progress}")
    for failure in progress.failures:
        echo(f"job {failure.job_id}: {failure.reason}")


@backfill.command()
def pause() -> None:
    """Stop starting logs (takes effect within ten seconds); logs under way continue."""
    _call(load_settings(), pause_backfill)
    click.echo("paused")


@backfill.command()
def resume() -> None:
    """Continue after a pause."""
    _call(load_settings(), resume_backfill)
    click.echo("resumed")


@backfill.command()
def cancel() -> None:
    """End the backfill; the workflows of logs under way continue."""
    _call(load_settings(), cancel_backfill)
    click.echo("cancelled")


def _call(settings: Settings, call: Callable[[Client], Awaitable[T]]) -> T:
    async def connect_and_call() -> T:
        return await call(await connect_temporal(settings.temporal))

    return asyncio.run(connect_and_call())
