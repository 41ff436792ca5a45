"""`logflume publish`: play files as CI jobs."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import click

from logflume.settings import load_settings
from logflume_cli.devstack.runner import connect, new_job_ids, open_log, play


@click.command()
@click.argument(
    "files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path)
)
@click.option(
    "--job-id",
    type=click.IntRange(1),
    help="Id of the first file's job; each further file takes the next. Else new, unused ids.",
)
@click.option(
    "--rate",
    metavar="BYTES_PER_SECOND",
    type=click.FloatRange(0, min_open=True),
    help="Play a file at this pace, as a running job would. Else as fast as it goes.",
)
def publish(files: tuple[Path, ...], job_id: int | None, rate: float | None) -> None:
    """Play files as the output of CI jobs, one after the other, in a runner's wire format.

    A file named .gz is unpacked. `logflume show JOB_ID` then tells where the log is.
    """
    job_ids = range(job_id, job_id + len(files)) if job_id else new_job_ids(len(files))
    url = load_settings().amqp.url.get_secret_value()
    asyncio.run(_publish(url, dict(zip(job_ids, files, strict=True)), rate))


async def _publish(url: str, files: dict[int, Path], rate: float | None) -> None:
    async with AsyncExitStack() as opened:
        # All are opened first: a misspelt name should not leave half of the jobs published.
        sources = {job_id: opened.enter_context(open_log(path)) for job_id, path in files.items()}
        connection = await opened.enter_async_context(await connect(url))
        channel = await connection.channel(publisher_confirms=False)
        for job_id, source in sources.items():
            played = await play(channel, job_id, source, rate=rate)
            click.echo(
                f"job {job_id}: {played.bytes} bytes, {played.parts} parts, "
                f"sha256 {played.sha256}, {files[job_id]}"
            )
