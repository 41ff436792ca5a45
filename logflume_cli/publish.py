"""`logflume publish`: publishes files as the output of CI jobs."""

import asyncio
from contextlib import AsyncExitStack
from dataclasses import asdict
from pathlib import Path

import click

from logflume.domain import MAX_JOB_ID
from logflume.errors import LogflumeError
from logflume.settings import load_settings
from logflume_cli.devstack.runner import connect, new_job_ids, open_log, play
from logflume_cli.job_id import JobId
from logflume_cli.output import json_option, print_json
from logflume_cli.terminal import echo


@click.command()
@click.argument(
    "files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path)
)
@click.option(
    "--job-id",
    type=JobId(),
    help="Job id of the first file; further files get the following ids. Default: unused ids.",
)
@click.option(
    "--rate",
    metavar="BYTES_PER_SECOND",
    type=click.FloatRange(0, min_open=True),
    help="Publish at this rate, like a running job. Default: as fast as possible.",
)
@json_option
def publish(
    files: tuple[Path, ...], job_id: int | None, rate: float | None, *, as_json: bool
) -> None:
    """Publish files one after the other as the output of CI jobs, in a runner's wire format.

    Files whose names end in .gz are decompressed. `logflume show JOB_ID` shows the state of a log.
    """
    count = len(files)
    job_ids = new_job_ids(count) if job_id is None else range(job_id, job_id + count)
    if job_ids[-1] > MAX_JOB_ID:
        raise LogflumeError(f"--job-id: the last of {count} job ids is above {MAX_JOB_ID}")
    url = load_settings().amqp.url.get_secret_value()
    jobs = dict(zip(job_ids, files, strict=True))
    asyncio.run(_publish(url, jobs, rate, as_json=as_json))


async def _publish(url: str, files: dict[int, Path], rate: float | None, *, as_json: bool) -> None:
    published: list[dict[str, object]] = []
    async with AsyncExitStack() as opened:
        # Open all files first: a misspelt name must not leave half of the jobs published.
        sources = {job_id: opened.enter_context(open_log(path)) for job_id, path in files.items()}
        connection = await opened.enter_async_context(await connect(url))
        channel = await connection.channel(publisher_confirms=False)
        for job_id, source in sources.items():
            played = await play(channel, job_id, source, rate=rate)
            published.append(asdict(played) | {"file": files[job_id]})
            if not as_json:
                echo(
                    f"job {job_id}: {played.bytes} bytes, {played.parts} parts, "
                    f"sha256 {played.sha256}, {files[job_id]}"
                )
    if as_json:
        print_json(published)
