"""The option `--json` of commands that print facts."""

import json
from datetime import datetime
from typing import Any

import click

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")


def print_json(value: Any) -> None:
    """Print JSON in ASCII, whatever the terminal."""
    click.echo(json.dumps(value, indent=2, default=_text))


def _text(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
