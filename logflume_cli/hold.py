"""`logflume hold`: legal holds on logs."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import click

from db import holds
from db.connect import Connection, open_pool
from logflume.archive.store import Archive
from logflume.domain import MAX_JOB_ID
from logflume.settings import load_settings

JOB = click.argument("job_id", type=click.IntRange(min=0, max=MAX_JOB_ID))
T = TypeVar("T")


@click.group()
def hold() -> None:
    """Keep a log's text, whatever else would delete it.

    While a log is held, retention leaves it alone, and calls that write, clear or remove its text
    are refused with 423: its job cannot be restarted. What is archived of it, then and later, is
    copied to `holds/` in the bucket.
    """


@hold.command()
@JOB
@click.option("--reason", required=True, help="Why; shown by `status` alone.")
def on(job_id: int, reason: str) -> None:
    """Hold the log of JOB_ID; safe to repeat."""

    async def put_on(connection: Connection, archive: Archive) -> str:
        log = await holds.put_on(connection, job_id, reason)
        kept = await archive.keep(job_id) if log.archive_verified else None
        return f"what is archived is copied to {kept}" if kept else "nothing is archived yet"

    click.echo(f"held; {_ask(put_on)}")


@hold.command()
@JOB
def off(job_id: int) -> None:
    """End the hold and delete the copies it kept; safe to repeat."""

    async def take_off(connection: Connection, archive: Archive) -> bool:
        was_held = await holds.take_off(connection, job_id)
        await archive.let_go(job_id)
        return was_held

    click.echo("no longer held" if _ask(take_off) else "was not held")


@hold.command()
@JOB
def status(job_id: int) -> None:
    """Tell whether the log of JOB_ID is held, since when, why, and what was copied."""

    async def read(connection: Connection, archive: Archive) -> tuple[holds.Hold | None, list[str]]:
        return await holds.read(connection, job_id), await archive.kept(job_id)

    held, kept = _ask(read)
    since = held.held_at.isoformat(timespec="seconds") if held else ""
    click.echo(f"held since {since}: {held.reason}" if held else "not held")
    for key in kept:
        click.echo(key)


def _ask(ask: Callable[[Connection, Archive], Awaitable[T]]) -> T:
    async def ask_all() -> T:
        settings = load_settings()
        archive = Archive(settings.s3, 1)
        async with await open_pool(settings.database, 1) as pool, pool.acquire() as connection:
            return await ask(connection, archive)

    return asyncio.run(ask_all())
