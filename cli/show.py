"""`logflume show`: where a job's log is in its life."""

import asyncio

import click

import temporal
from db import logs
from db.connect import open_pool
from domain import Log
from settings import Settings, load_settings
from web.lifecycle import Told, ask, lifecycle_body


@click.command()
@click.argument("job_id", type=click.IntRange(min=0))
def show(job_id: int) -> None:
    """Tell where the log of JOB_ID is in its life."""
    settings = load_settings()
    log, told = asyncio.run(_ask(settings, job_id))
    body = lifecycle_body(log, told, settings.temporal.ui_url, settings.temporal.namespace)
    facts = {name: getattr(body, name) for name in body.__struct_fields__ if name != "type"}
    facts["sha256"] = log.content_sha256
    for name, value in facts.items():
        if value not in (None, ""):
            click.echo(f"{name:<18}{value}")


async def _ask(settings: Settings, job_id: int) -> tuple[Log, Told]:
    async with await open_pool(settings.database, 1) as pool, pool.acquire() as connection:
        log = await logs.find(connection, job_id)
    return log, await ask(await temporal.connect(settings.temporal, lazy=True), job_id)
