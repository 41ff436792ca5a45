"""`logflume config`: prints all settings."""

import json

import click

from logflume.settings import load_settings


@click.command()
def config() -> None:
    """Print all settings as JSON, with secrets hidden.

    Set them as LOGFLUME_<GROUP>__<FIELD> in the environment; docs/settings.md describes each one.
    """
    click.echo(json.dumps(load_settings().model_dump(mode="json"), indent=2))
