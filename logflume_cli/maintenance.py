"""`logflume maintenance`: the switch that pauses all reads and writes of log parts."""

from datetime import UTC, datetime, timedelta

import click

from db import maintenance as switch
from logflume_cli.database import on_database
from logflume_cli.duration import Duration
from logflume_cli.output import json_option, print_json


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
    until = on_database(lambda connection: switch.switch_on(connection, duration))
    click.echo(f"on until {_time(until)}")


@maintenance.command()
def off() -> None:
    """Turn it off."""
    on_database(switch.switch_off)
    click.echo("off")


@maintenance.command()
@json_option
def status(*, as_json: bool) -> None:
    """Show whether it is on, and until when."""
    until = on_database(switch.until)
    if as_json:
        print_json({"until": until})
        return
    click.echo(f"on until {_time(until)}" if until else "off")


def _time(until: datetime) -> str:
    left = round((until - datetime.now(UTC)).total_seconds())
    return f"{until.isoformat(timespec='seconds')}, {left} s from now"
