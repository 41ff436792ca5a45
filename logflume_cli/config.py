"""`logflume config`: every setting, secrets hidden."""

import json

import click

from logflume.settings import load_settings


@click.command()
def config() -> None:
    """Print every setting as JSON, secrets hidden.

    docs/settings.md says what each means; LOGFLUME_<GROUP>__<FIELD> in the environment sets it.
    """
    click.echo(json.dumps(load_settings().model_dump(mode="json"), indent=2))
