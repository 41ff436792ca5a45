"""`logflume backfill`: brings many logs to their ends again."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TypeVar

import click
from temporalio.client import WorkflowHandle
from temporalio.exceptions import TemporalError, WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from activities.types import BACKFILL_KINDS
from logflume.errors import ComponentError
from logflume.settings import Settings, load_settings
from logflume_cli.duration import Duration
from workflows.backfill import job_ranges, tell
from workflows.client import connection as temporal
from workflows.types import (
    BACKFILL,
    BACKFILL_ID,
    PAUSE,
    PROGRESS_QUERY,
    RESUME,
    BackfillInput,
    BackfillProgress,
)

T = TypeVar("T")
Handle = WorkflowHandle[object, BackfillProgress]

ANSWER = timedelta(seconds=10)


@click.group()
def backfill() -> None:
    """Bring many logs to their ends again, at a pace, one backfill at a time."""


@backfill.command()
@click.argument("jobs", nargs=-1)
@click.option("--kind", type=click.Choice(BACKFILL_KINDS), help="Logs of this kind.")
@click.option(
    "--concurrency", default=100, show_default=True, help="Logs under way at once, 1000 at most."
)
@click.option("--rate", default=20, show_default=True, help="Logs begun a second, 500 at most.")
@click.option(
    "--limit",
    type=Duration(),
    default="10m",
    show_default=True,
    help="A log that takes longer is named as failed; its workflow goes on.",
)
def start(jobs: tuple[str, ...], kind: str, concurrency: int, rate: int, limit: timedelta) -> None:
    """Start a backfill of JOBS, which are job ids (42) and ranges of them (1000-2000).

    Their logs are archived again from their parts, finished ones too. With --kind in place of
    JOBS, those unfinished logs are brought on that no workflow brings on: lost or stuck ones,
    not_archived: no upload was begun; not_verified: or none was read back and found right;
    not_purged: or the purge is overdue.
    """
    settings = load_settings()
    given = BackfillInput(
        list(jobs),
        kind or "",
        concurrency,
        rate,
        limit.total_seconds(),
        settings.sweep.after_seconds,
        settings.lifecycle.purge_seconds,
    )
    try:
        job_ranges(given)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    asyncio.run(_start(settings, given))
    click.echo("started; `logflume backfill status` tells how far it is")


async def _start(settings: Settings, given: BackfillInput) -> None:
    client = await temporal.connect(settings.temporal)
    try:
        await client.start_workflow(
            BACKFILL,
            given,
            id=BACKFILL_ID,
            task_queue=settings.temporal.task_queue,
            static_summary=f"backfill: {given.kind or ', '.join(map(str, given.jobs))}"[:200],
        )
    except WorkflowAlreadyStartedError as error:
        raise ComponentError(
            "a backfill runs already: wait until `logflume backfill status` says that it is done, "
            "or `logflume backfill cancel` it"
        ) from error
    except (RPCError, RuntimeError) as error:
        raise ComponentError(f"{temporal.describe(settings.temporal)}: {error}") from error


@backfill.command()
def status() -> None:
    """Tell how far the last backfill is, or its result, and which logs failed."""
    name, progress = _ask(_status)
    click.echo(f"{name}: {tell(progress)}")
    for failure in progress.failures:
        click.echo(f"job {failure.job_id}: {failure.reason}")


async def _status(handle: Handle) -> tuple[str, BackfillProgress]:
    told = await handle.describe(rpc_timeout=ANSWER)
    progress: BackfillProgress = await handle.query(
        PROGRESS_QUERY, result_type=BackfillProgress, rpc_timeout=ANSWER
    )
    name = told.status.name.lower() if told.status else "unknown"
    return "paused" if name == "running" and progress.paused else name, progress


@backfill.command()
def pause() -> None:
    """Begin no more logs within ten seconds; those begun go on."""
    _ask(lambda handle: handle.signal(PAUSE, rpc_timeout=ANSWER))
    click.echo("paused")


@backfill.command()
def resume() -> None:
    """Go on after a pause."""
    _ask(lambda handle: handle.signal(RESUME, rpc_timeout=ANSWER))
    click.echo("resumed")


@backfill.command()
def cancel() -> None:
    """End the backfill; logs that were begun go on by themselves."""
    _ask(lambda handle: handle.cancel(rpc_timeout=ANSWER))
    click.echo("cancelled")


def _ask(ask: Callable[[Handle], Awaitable[T]]) -> T:
    settings = load_settings()

    async def asked() -> T:
        client = await temporal.connect(settings.temporal)
        try:
            return await ask(client.get_workflow_handle(BACKFILL_ID))
        except TemporalError as error:
            if isinstance(error, RPCError) and error.status == RPCStatusCode.NOT_FOUND:
                raise ComponentError("no backfill runs: start one") from error
            raise ComponentError(
                f"the backfill does not answer: {error}; does a worker run? `logflume doctor`"
            ) from error

    return asyncio.run(asked())
