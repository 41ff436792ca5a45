"""Prints a generated file of docs/, or with `--check` fails if the file differs."""

import sys
from collections.abc import Callable
from pathlib import Path


def generate(name: str, make: Callable[[], str]) -> None:
    """Print what `make` returns, or compare it with the file `name`."""
    script = f"docs/{Path(sys.argv[0]).name}"
    file = Path(__file__).with_name(name)
    if sys.argv[1:] not in ([], ["--check"]):
        sys.exit(f"usage: {script} [--check]")
    if len(sys.argv) == 1:
        sys.stdout.write(make())
    elif not file.exists() or file.read_text() != make():
        sys.exit(f"docs/{name} is out of date: run .venv/bin/python {script} >docs/{name}")
