"""`logflume db`: runs sqitch on the database schema."""

import click

from db import migrate
from logflume.settings import load_settings


@click.group()
def db() -> None:
    """Deploy, verify or revert the database schema with sqitch."""


def _run(command: str, *arguments: str) -> None:
    url = load_settings().database.direct
    click.echo(migrate.run(command, url, *arguments).rstrip())


@db.command()
def deploy() -> None:
    """Deploy all pending changes and verify each one."""
    _run("deploy")


@db.command()
def verify() -> None:
    """Run the verify script of every deployed change."""
    _run("verify")


@db.command()
@click.option("--to", help="The last change to keep; without it, all changes are reverted.")
@click.confirmation_option(prompt="This deletes data. Revert?")
def revert(to: str | None) -> None:
    """Revert changes and delete the data in their tables."""
    _run("revert", "-y", *(("--to", to) if to else ()))


@db.command()
def status() -> None:
    """Show which changes are deployed and which are pending."""
    _run("status")
