"""The demo: carries a small fleet of CI jobs through the whole pipeline on the local stack.

Run it with `bin/demo`, which installs everything first.
"""

import io
import random
import sys
from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path

import click
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Column, Table

from logflume.errors import LogflumeError
from logflume.settings import Settings, load_settings
from logflume_cli.devstack.components import NAMES
from logflume_cli.devstack.fleet import Job, compare_fleet, follow_fleet, play_fleet, summarize
from logflume_cli.devstack.runner import new_job_ids, open_log
from logflume_cli.devstack.samples import fleet
from logflume_cli.devstack.stack import LocalStack
from logflume_cli.devstack.tasks import run_until_signal, together
from logflume_cli.stack import console, report_exit, report_ready
from web.auth import sign_link

SEED = 1
JOBS = 12
ROWS = 40
# Durations of the generated jobs, in seconds.
SHORTEST, LONGEST = 4.0, 10.0
PHASES = ("waiting", "receiving", "aggregating", "archiving", "verified", "done")
JOB = Column("job", no_wrap=True, min_width=16)


@click.command()
@click.option("--once", is_flag=True, help="Compare each archived log with its source, then exit.")
@click.argument("files", metavar="[FILE]...", nargs=-1, type=click.Path(path_type=Path))
def main(files: tuple[Path, ...], *, once: bool) -> None:
    """Start the local stack and publish FILEs, or generated logs, as CI jobs.

    Without --once the stack runs until Ctrl-C. Components that the demo started are stopped at the
    end. With --once the exit code is 0 only if every log was archived, verified and purged, and
    the archived bytes equal the source.
    """
    try:
        sys.exit(run_until_signal(_demo(_jobs(files, throttled=not once), once=once)))
    except LogflumeError as error:
        click.echo(f"demo: {error}", err=True)
        sys.exit(1)


def _jobs(files: Sequence[Path], *, throttled: bool) -> list[Job]:
    if files:
        for path in files:
            open_log(path).close()
        named = zip(new_job_ids(len(files)), files, strict=True)
        return [Job(job_id, path.name, partial(open_log, path)) for job_id, path in named]
    rng = random.Random(SEED)  # noqa: S311 - not a secret
    return [
        Job(
            job_id,
            name,
            partial(io.BytesIO, content),
            rate=len(content) / rng.uniform(SHORTEST, LONGEST) if throttled else None,
        )
        for job_id, (name, content) in zip(new_job_ids(JOBS), fleet(SEED, JOBS), strict=True)
    ]


async def _demo(jobs: list[Job], *, once: bool) -> int:
    stack = LocalStack(load_settings().stack.folder)
    with console.status("starting the local stack…"):
        started = await stack.up(on_ready=report_ready)
    settings = load_settings()
    try:
        if not once:
            _show_addresses(settings, jobs)
        await _play(settings, jobs)
        if once:
            return await _compare(settings, stack, jobs)
        console.print("Press Ctrl-C to end the demo.")
        await stack.watch(NAMES, report_exit)
        return 0
    finally:
        if started:
            with console.status("stopping the local stack…"):
                await stack.down(started)


async def _play(settings: Settings, jobs: list[Job]) -> None:
    with Live(console=console, get_renderable=lambda: _progress(jobs), refresh_per_second=4):
        await together(
            play_fleet(settings.amqp.url.get_secret_value(), jobs),
            follow_fleet(settings.database.url.get_secret_value(), jobs),
        )
    console.print()


def _progress(jobs: list[Job]) -> Table | str:
    if len(jobs) > ROWS:
        return summarize(jobs)
    table = Table(JOB, "name", Column("bytes", justify="right"), "parts", "phase", "")
    for job in jobs:
        bar = ProgressBar(len(PHASES) - 1, PHASES.index(job.phase), width=24)
        table.add_row(str(job.job_id), job.name, f"{job.bytes:,}", str(job.parts), job.phase, bar)
    return table


def _show_addresses(settings: Settings, jobs: list[Job]) -> None:
    """Print the addresses; links to logs are signed for an hour, so they need no token."""
    for job in jobs:
        link = sign_link(settings.web, job.job_id, timedelta(hours=1))
        _show(job.name, f"{settings.web.url}/jobs/{job.job_id}?share={link}")
    _show("all logs", f"{settings.web.url}/")
    _show("token", settings.web.auth_token.get_secret_value() if settings.web.auth_token else "")
    _show("API", f"{settings.web.url}/schema")
    _show("Temporal UI", settings.temporal.ui_url)
    console.print()


def _show(name: str, address: str) -> None:
    console.print(f"{name:<14}{address}", highlight=False, soft_wrap=True)


async def _compare(settings: Settings, stack: LocalStack, jobs: list[Job]) -> int:
    equal = await compare_fleet(settings.s3, jobs)
    table = Table(JOB, "name", "bytes", "parts", "verified after", "archive")
    for job in jobs:
        verdict = "[green]equal[/]" if equal[job.job_id] else "[bold red]DIFFERENT[/]"
        seconds = f"{job.verify_seconds:.1f} s" if job.verify_seconds is not None else ""
        row = (str(job.job_id), job.name, f"{job.bytes:,}", str(job.parts), seconds, verdict)
        table.add_row(*row)
    console.print(table)
    console.print(f"{sum(equal.values())} of {len(jobs)} equal; {_worker_memory(stack)}")
    return 0 if all(equal.values()) else 1


def _worker_memory(stack: LocalStack) -> str:
    pid = next(item.pid for item in stack.status() if item.name == "worker")
    if pid is None:
        return "the worker is not running"
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return "the worker's peak memory is only available on Linux"
    kib = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    return f"the worker's peak memory (RSS): {kib / 1024:.0f} MiB"


if __name__ == "__main__":
    main()
