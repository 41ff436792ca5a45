"""`logflume show`: prints the lifecycle state of a job's log."""

import asyncio

import click
import msgspec

from db import reading
from db.connect import open_pool
from logflume.domain import Attempt, Log
from logflume.settings import Settings, load_settings
from logflume_cli.job_id import JobId
from logflume_cli.output import json_option, print_json
from logflume_cli.services import lazy_workflows
from logflume_cli.terminal import echo
from web.lifecycle import ASK_SECONDS, lifecycle_body
from workflows.client.logs import Run


@click.command()
@click.argument("job_id", type=JobId())
@json_option
def show(job_id: int, *, as_json: bool) -> None:
    """Show the lifecycle state of the log of JOB_ID."""
    settings = load_settings()
    log, attempts, workflow_run = asyncio.run(_read(settings, job_id))
    body = lifecycle_body(log, attempts, workflow_run, settings.temporal)
    if as_json:
        print_json(msgspec.to_builtins(body) | {"sha256": log.content_sha256})
        return
    hidden = ("type", "attempts")
    facts = {name: getattr(body, name) for name in body.__struct_fields__ if name not in hidden}
    facts["sha256"] = log.content_sha256
    facts["attempts"] = ", ".join(a.uuid or "(without a uuid)" for a in attempts)
    for name, value in facts.items():
        if value not in (None, ""):
            echo(f"{name:<18}{value}")


async def _read(settings: Settings, job_id: int) -> tuple[Log, list[Attempt], Run]:
    async with await open_pool(settings.database, 1) as pool, pool.acquire() as connection:
        log = await reading.find(connection, job_id)
        attempts = await reading.attempts(connection, log.id)
    workflows = await lazy_workflows(settings)
    return log, attempts, await workflows.latest_run(job_id, ASK_SECONDS)
