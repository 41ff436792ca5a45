"""The command `logflume reconcile`."""

import asyncio
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import click

from db.connect import check_schema, open_pool
from db.errors import FAILURES
from logflume.archive.inventory import Inventory
from logflume.errors import ComponentError, LogflumeError
from logflume.settings import Settings, load_settings
from logflume_cli.job_id import JobId
from logflume_cli.output import json_option, print_json
from logflume_cli.reconcile.reconciler import CONCURRENCY, Options, Reconciler
from logflume_cli.services import make_workflows
from logflume_cli.terminal import echo
from workflows.client.connection import connect_temporal
from workflows.client.signal_history import SignalHistory

PROGRESS_LOGS = 100_000


class _Time(click.ParamType[datetime]):
    """An ISO 8601 time, in UTC unless it has an offset."""

    name = "time"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime:
        try:
            time = datetime.fromisoformat(str(value))
        except ValueError:
            self.fail("expected an ISO 8601 time such as 2026-11-25T03:00:00Z", param, ctx)
        return time if time.tzinfo else time.replace(tzinfo=UTC)


@click.command()
@click.option("--repair", is_flag=True, help="Fix what can be fixed; without it, only report.")
@click.option(
    "--restored-to",
    "since",
    type=_Time(),
    help="The restore point of the database, or a time before a failover. Objects that changed "
    "after it are compared one by one, and logs whose workflows were running after it must have "
    "all parts that drains reported to Temporal.",
)
@click.option("--read", is_flag=True, help="Read every object and compare its SHA-256.")
@click.option(
    "--from-job",
    type=JobId(),
    help="Resume at this job, in key order (10 before 9).",
)
@json_option
def reconcile(
    *, repair: bool, since: datetime | None, read: bool, from_job: int | None, as_json: bool
) -> None:
    """Compare the database with the archive and the workflows, e.g. after a restore or failover.

    Prints a line for each difference: what was fixed, what --repair can fix, or what needs a manual
    decision. After restoring the database, run it before starting workers (docs/backups.md). Safe
    to interrupt and repeat. Exits with 1 if differences remain.
    """
    options = Options(repair=repair, read=read)
    differences: list[dict[str, object]] = []

    def report(job_id: int, text: str) -> None:
        differences.append({"job_id": job_id, "text": text})
        if not as_json:
            echo(f"job {job_id}: {text}")

    counts = asyncio.run(_reconcile(load_settings(), options, report, since, from_job))
    if as_json:
        print_json({"counts": counts, "differences": differences})
    else:
        summary = ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
        click.echo(summary or "there are no logs")
    if counts["repairable"]:
        raise LogflumeError(
            "database and archive differ; rerun with --repair to fix what can be fixed"
        )
    if counts["left"]:
        raise LogflumeError("the remaining differences need a manual decision (see above)")


async def _reconcile(
    settings: Settings,
    options: Options,
    report: Callable[[int, str], None],
    since: datetime | None,
    from_job: int | None,
) -> Counter[str]:
    archive = Inventory(settings.s3, CONCURRENCY)
    client = await connect_temporal(settings.temporal)
    workflows = make_workflows(client, settings)
    history = SignalHistory(client, since) if since else None
    options = options._replace(history=history)
    async with await open_pool(settings.database) as pool:
        await check_schema(pool)
        reconciler = Reconciler(pool, archive, workflows, options, report)
        try:
            await reconciler.logs(from_job, _progress(reconciler.counts))
            await reconciler.holds()
            if history:
                await reconciler.workflows(history)
        except (*FAILURES, ComponentError) as error:
            raise ComponentError(
                f"{str(error) or type(error).__name__}; run it again: finished repairs are not lost"
            ) from error
    return reconciler.counts


def _progress(counts: Counter[str]) -> Callable[[int], None]:
    reported = 0

    def on_progress(job_id: int) -> None:
        nonlocal reported
        if counts.total() - reported >= PROGRESS_LOGS:
            reported = counts.total()
            click.echo(f"{reported} logs; resume here with --from-job {job_id}", err=True)

    return on_progress
