"""`logflume maintenance`: the switch that keeps everyone away from parts for a while."""

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
    """Keep everyone away from parts for a while, as for work on the database.

    While the switch is on, drains hold what they have and RabbitMQ the rest, calls that read or
    write parts answer 503 with Retry-After, and aggregation waits. All go on by themselves when
    its time is over or it is switched off.
    """


@maintenance.command()
@click.option(
    "--for", "lifetime", type=Duration(), default="5m", show_default=True, help="How long."
)
def on(lifetime: timedelta) -> None:
    """Switch on; returns once nobody writes parts any more."""
    until = asyncio.run(_ask(lambda connection: switch.switch_on(connection, lifetime)))
    click.echo(f"on until {_time(until)}")


@maintenance.command()
def off() -> None:
    """Switch off."""
    asyncio.run(_ask(switch.switch_off))
    click.echo("off")


@maintenance.command()
def status() -> None:
    """Tell whether it is on, and until when."""
    until = asyncio.run(_ask(switch.until))
    click.echo(f"on until {_time(until)}" if until else "off")


async def _ask(ask: Callable[[Connection], Awaitable[T]]) -> T:
    settings = load_settings().database
    async with await open_pool(settings, 1) as pool, pool.acquire() as connection:
        return await ask(connection)


def _time(until: datetime) -> str:
    left = round((until - datetime.now(UTC)).total_seconds())
    return f"{until.isoformat(timespec='seconds')}, {left} s from now"
