"""`logflume maintenance`: the switch that pauses all reads and writes of log parts."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import TypeVar

import click

from db import maintenance as switch
from db.connect import Connection, open_pool
from logflume.settings import load_settings
from logflume_cli.duration import Duration

T = TypeVar("T")


@click.group()
def maintenance() -> None:
    """Pause all reads and writes of log parts, e.g. for work on the database.

    While it is on, drains stop committing and messages stay in RabbitMQ, requests that read parts
    or write content get 503 with Retry-After, and aggregation waits. Parts over HTTP are still
    accepted into RabbitMQ. Everything resumes by itself when the time is up or the switch is
    turned off.
    """


@maintenance.command()
@click.option(
    "--for",
    "duration",
    type=Duration(),
    default="5m",
    show_default=True,
    help="How long it stays on, e.g. 30m or 2h.",
)
def on(duration: timedelta) -> None:
    """Turn maintenance on; returns once all writes of parts have stopped."""
    until = asyncio.run(_run(lambda connection: switch.switch_on(connection, duration)))
    click.echo(f"on until {_time(until)}")


@maintenance.command()
def off() -> None:
    """Turn it off."""
    asyncio.run(_run(switch.switch_off))
    click.echo("off")


@maintenance.command()
def status() -> None:
    """Show whether it is on, and until when."""
    until = asyncio.run(_run(switch.until))
    click.echo(f"on until {_time(until)}" if until else "off")


async def _run(action: Callable[[Connection], Awaitable[T]]) -> T:
    settings = load_settings().database
    async with await open_pool(settings, 1) as pool, pool.acquire() as connection:
        return await action(connection)


def _time(until: datetime) -> str:
    left = round((until - datetime.now(UTC)).total_seconds())
    return f"{until.isoformat(timespec='seconds')}, {left} s from now"
