"""`logflume hold`: legal holds on logs."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

import click

from db import holds
from db.connect import Connection
from logflume.archive.store import Archive
from logflume.settings import load_settings
from logflume_cli.database import on_database
from logflume_cli.job_id import JobId
from logflume_cli.output import json_option, print_json
from logflume_cli.terminal import echo

JOB = click.argument("job_id", type=JobId())
T = TypeVar("T")


@click.group()
def hold() -> None:
    """Place or remove legal holds, which protect a log's text from deletion.

    While a log is held, retention skips it, and requests that write, clear or remove its text are
    refused with 423, so its job cannot be restarted. Archived versions, present and future, are
    copied to `holds/` in the bucket.
    """


@hold.command()
@JOB
@click.option("--reason", required=True, help="The reason; shown only by `status`.")
def on(job_id: int, reason: str) -> None:
    """Hold the log of JOB_ID; safe to repeat."""

    async def put_on(connection: Connection, archive: Archive) -> str:
        log = await holds.put_on(connection, job_id, reason)
        copy = await archive.copy_to_hold(job_id) if log.archive_verified else None
        return f"copied to {copy}" if copy else "not archived yet"

    click.echo(f"held; {_run(put_on)}")


@hold.command()
@JOB
def off(job_id: int) -> None:
    """Remove the hold and delete its copies; safe to repeat."""

    async def take_off(connection: Connection, archive: Archive) -> bool:
        was_held = await holds.take_off(connection, job_id)
        await archive.delete_hold_copies(job_id)
        return was_held

    click.echo("no longer held" if _run(take_off) else "was not held")


@hold.command()
@JOB
@json_option
def status(job_id: int, *, as_json: bool) -> None:
    """Show whether the log of JOB_ID is held, why, and the copies stored for the hold."""

    async def read(connection: Connection, archive: Archive) -> tuple[holds.Hold | None, list[str]]:
        return await holds.read(connection, job_id), await archive.hold_copies(job_id)

    held, copies = _run(read)
    if as_json:
        print_json({"held": held._asdict() if held else None, "copies": copies})
        return
    since = held.held_at.isoformat(timespec="seconds") if held else ""
    echo(f"held since {since}: {held.reason}" if held else "not held")
    for key in copies:
        click.echo(key)


def _run(action: Callable[[Connection, Archive], Awaitable[T]]) -> T:
    archive = Archive(load_settings().s3, 1)
    return on_database(lambda connection: action(connection, archive))
