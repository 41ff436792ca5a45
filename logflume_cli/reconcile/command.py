"""`logflume reconcile`: rows, objects and workflows compared, and repaired."""

import asyncio
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import asyncpg
import click
from temporalio.service import RPCError

from db.connect import UNREACHABLE, check_schema, open_pool
from logflume.archive.inventory import Inventory
from logflume.domain import MAX_JOB_ID
from logflume.errors import ComponentError, LogflumeError
from logflume.settings import Settings, load_settings
from logflume_cli.reconcile.reconciler import AT_ONCE, Options, Reconciler
from workflows.client import connection as temporal
from workflows.client.logs import LogWorkflows
from workflows.client.signal_history import Memory
from workflows.types import LifecycleOptions

TELL_EVERY = 100_000


class _Moment(click.ParamType[datetime]):
    """A time in ISO 8601; without an offset it is UTC."""

    name = "time"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime:
        try:
            moment = datetime.fromisoformat(str(value))
        except ValueError:
            self.fail("a time such as 2026-11-25T03:00:00Z", param, ctx)
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


@click.command()
@click.option("--repair", is_flag=True, help="Repair what can be; without it, only tell.")
@click.option(
    "--restored-to",
    "since",
    type=_Moment(),
    help="The time that the database was restored to. What the archive got after it is looked at "
    "one by one, and workflows are asked for what they heard after it.",
)
@click.option("--read", is_flag=True, help="Read every object to its end and compare its SHA-256.")
@click.option(
    "--from-job",
    type=click.IntRange(min=0, max=MAX_JOB_ID),
    help="Go on from this job, in the order of the bucket (10 before 9).",
)
def reconcile(*, repair: bool, since: datetime | None, read: bool, from_job: int | None) -> None:
    """Compare the database with the archive and the workflows, as after a restore.

    Prints a line for each log that is not the same in all of them: what was done, can be done with
    --repair, or a person must decide. After a restore of the database run it before workers start
    (docs/backups.md). May be interrupted and repeated. The exit code is 1 unless all is consistent.
    """
    options = Options(repair=repair, read=read)
    counts = asyncio.run(_reconcile(load_settings(), options, since, from_job))
    told = ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
    click.echo(told or "there are no logs")
    if counts["repairable"]:
        raise LogflumeError("the database and the archive differ: --repair mends what can be")
    if counts["left"]:
        raise LogflumeError("what is left a person must decide: see the lines above")


async def _reconcile(
    settings: Settings, options: Options, since: datetime | None, from_job: int | None
) -> Counter[str]:
    archive = Inventory(settings.s3, AT_ONCE)
    client = await temporal.connect(settings.temporal)
    workflows = LogWorkflows(
        client,
        settings.temporal.task_queue,
        LifecycleOptions(**settings.lifecycle.model_dump()),
    )
    memory = Memory(client, since) if since else None
    options = options._replace(memory=memory)
    async with await open_pool(settings.database) as pool:
        await check_schema(pool)
        reconciler = Reconciler(pool, archive, workflows, options, click.echo)
        try:
            await reconciler.logs(from_job, _progress(reconciler.counts))
            await reconciler.holds()
            if memory:
                await reconciler.workflows(memory)
        except (*UNREACHABLE, asyncpg.PostgresError, RPCError) as error:
            raise ComponentError(
                f"{error or type(error).__name__}: what was repaired stays; run it again"
            ) from error
    return reconciler.counts


def _progress(counts: Counter[str]) -> Callable[[int], None]:
    told = 0

    def reached(job_id: int) -> None:
        nonlocal told
        if counts.total() - told >= TELL_EVERY:
            told = counts.total()
            click.echo(f"{told} logs; --from-job {job_id} goes on from here", err=True)

    return reached
