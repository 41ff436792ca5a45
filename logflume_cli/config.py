"""`logflume config`: prints all settings."""

import json
from pathlib import Path
from urllib.parse import urlsplit

import click
from pydantic import SecretStr

from logflume.settings import load_settings


@click.command()
def config() -> None:
    """Print all settings as JSON, with secrets hidden.

    Set them as LOGFLUME_<GROUP>__<FIELD> in the environment; docs/settings.md describes each one.
    """
    click.echo(json.dumps(load_settings().model_dump(), indent=2, default=_shown))


def _shown(value: SecretStr | Path) -> str:
    """A path, or a secret: hidden, but of a URL only the password."""
    if not isinstance(value, SecretStr):
        return str(value)
    hidden, parts = str(value), urlsplit(value.get_secret_value())
    if "://" not in value.get_secret_value():
        return hidden
    login, at, host = parts.netloc.rpartition("@")
    user, has_password, _ = login.partition(":")
    if has_password:
        user += f":{hidden}"
    elif parts.scheme.startswith("http"):  # a key, as in Sentry's DSN
        user = hidden if at else ""
    return parts._replace(netloc=user + at + host).geturl()
