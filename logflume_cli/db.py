"""`logflume db`: the schema, through sqitch."""

import click

from db import migrate
from logflume.settings import load_settings


@click.group()
def db() -> None:
    """Deploy, verify or revert the database schema, which sqitch owns."""


def _run(command: str, *arguments: str) -> None:
    url = load_settings().database.direct
    click.echo(migrate.run(command, url, *arguments).rstrip())


@db.command()
def deploy() -> None:
    """Bring the schema up to date, verifying each change."""
    _run("deploy")


@db.command()
def verify() -> None:
    """Check that what is deployed is what it should be."""
    _run("verify")


@db.command()
@click.option("--to", help="The change to go back to; without it everything goes.")
@click.confirmation_option(prompt="This deletes data. Revert?")
def revert(to: str | None) -> None:
    """Take changes back, and with them the data they hold."""
    _run("revert", "-y", *(("--to", to) if to else ()))


@db.command()
def status() -> None:
    """Tell which changes are deployed and which are not."""
    _run("status")
