"""The demo: a small fleet of CI jobs through the whole pipeline, on real components.

Run as `python -m stack.demo`, or by `bin/demo`, which sets the machine up before.
"""

import asyncio
import io
import random
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import click
from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from errors import LogflumeError
from settings import Settings, load_settings
from stack.fleet import Job, compare_fleet, follow_fleet, play_fleet, whereabouts
from stack.foreground import run_until_signal
from stack.runner import new_job_ids, open_log
from stack.samples import fleet
from stack.stack import LocalStack

SEED = 1
JOBS = 12
ROWS = 40
# How long the jobs of the demo run, in seconds.
SHORTEST, LONGEST = 4.0, 10.0
PHASES = ("waiting", "receiving", "aggregating", "archiving", "verified", "done")
console = Console()


@click.command()
@click.option("--once", is_flag=True, help="Compare each log's archive with its source, and end.")
@click.argument("files", metavar="[FILE]...", nargs=-1, type=click.Path(path_type=Path))
def main(files: tuple[Path, ...], *, once: bool) -> None:
    """Start the local stack and play FILEs, or generated logs, as CI jobs.

    Without --once it then stays, for a look around, until Ctrl-C. The stack is stopped at the
    end, unless it ran before. With --once the exit code is 0 only if every log was archived,
    verified, purged and is, in the archive, equal to its source byte for byte.
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
        return [Job(job_id, path.name, lambda path=path: open_log(path)) for job_id, path in named]
    rng = random.Random(SEED)
    return [
        Job(
            job_id,
            name,
            lambda content=content: io.BytesIO(content),
            rate=len(content) / rng.uniform(SHORTEST, LONGEST) if throttled else None,
        )
        for job_id, (name, content) in zip(new_job_ids(JOBS), fleet(SEED, JOBS), strict=True)
    ]


async def _demo(jobs: list[Job], *, once: bool) -> int:
    stack = LocalStack(load_settings().stack.data_dir)
    with console.status("starting the local stack…"):
        started = await stack.up(on_ready=_tell_ready)
    settings = load_settings()
    try:
        await _play(settings, jobs)
        if once:
            return await _compare(settings, stack, jobs)
        _show_addresses(settings, jobs)
        await stack.watch(started, lambda item: console.print(f"{item.name} ended: {item.log}"))
        return 0
    finally:
        if started:
            with console.status("stopping what was started…"):
                await stack.down(started)


def _tell_ready(name: str, seconds: float) -> None:
    console.print(f"[green]✓[/] {name:<9} ready after {seconds:.1f} s", highlight=False)


async def _play(settings: Settings, jobs: list[Job]) -> None:
    with Live(console=console, get_renderable=lambda: _progress(jobs), refresh_per_second=4):
        async with asyncio.TaskGroup() as group:
            group.create_task(play_fleet(settings.amqp.url.get_secret_value(), jobs))
            group.create_task(follow_fleet(settings.database.url.get_secret_value(), jobs))
