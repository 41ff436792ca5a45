#!/usr/bin/env python3
"""Prints docs/settings.md, made from the settings; with `--check`, tells whether that differs."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from logflume.settings import PREFIX, Settings
from logflume.settings.groups import Group

PAGE = Path(__file__).with_name("settings.md")
PROJECT = PAGE.parents[1]
INTRODUCTION = """\
# Settings

<!-- Made by docs/make_settings.py from logflume/settings/: change that, not this one. -->

A setting comes from the environment; if it is not there, from the settings file of the local stack
(`.stack/settings.json`, written by `logflume stack up`); if there is none, from the defaults below.
A wrong value, or a name that is not on this page, ends the start with one line that says what is
wrong.

`logflume config` prints what is set, secrets hidden. Processes read settings as they start; those
of the sweep and of partitions also need `logflume schedules apply`. In Kubernetes, under systemd
and in Compose they stand in files that [installation.md](installation.md) names.
"""


def page() -> str:
    """Write the whole page."""
    return "\n".join([INTRODUCTION, *_groups()])


def _groups() -> Iterator[str]:
    for name, field in Settings.model_fields.items():
        group = field.annotation
        if not (isinstance(group, type) and issubclass(group, Group)):
            raise TypeError(f"settings.{name} is not a group of settings")
        rows = [
            _row(f"{PREFIX}{name}__{key}".upper(), it) for key, it in group.model_fields.items()
        ]
        table = ["| environment variable | default | meaning |", "| --- | --- | --- |", *rows]
        yield "\n".join([f"## {name}", "", group.__doc__ or "", "", *table, ""])


def _row(variable: str, field: FieldInfo) -> str:
    meaning = field.description or ""
    if get_origin(field.annotation) is Literal:
        choices = ", ".join(f"`{choice}`" for choice in get_args(field.annotation))
        meaning += f" (one of {choices})"
    meaning = meaning.replace("|", r"\|")
    return f"| `{variable}` | {_default(field.default)} | {meaning} |"


def _default(value: Any) -> str:
    if value is None:
        return "unset"
    if isinstance(value, SecretStr):
        # A URL of ours names a place and no password; any other secret stays one.
        url = value.get_secret_value()
        value = url if "://" in url and "@" not in url else "hidden"
    if isinstance(value, Path):
        value = value.relative_to(PROJECT)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return f"`{value}`" if str(value) else "empty"


def _main(arguments: list[str]) -> None:
    if arguments not in ([], ["--check"]):
        sys.exit("usage: docs/make_settings.py [--check]")
    if not arguments:
        sys.stdout.write(page())
    elif not PAGE.exists() or PAGE.read_text() != page():
        sys.exit(
            "docs/settings.md is not what settings/ says: "
            "run .venv/bin/python docs/make_settings.py >docs/settings.md"
        )


if __name__ == "__main__":
    _main(sys.argv[1:])
