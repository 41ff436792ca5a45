"""Prints text that others wrote: on a terminal it must not move the cursor or change the title."""

import sys

import click


def echo(text: str, *, err: bool = False) -> None:
    """Print a line; on a terminal, characters that do not print appear as escapes."""
    stream = sys.stderr if err else sys.stdout
    click.echo(printable(text) if stream.isatty() else text, err=err)


def printable(text: str) -> str:
    """Write characters that do not print, line breaks included, as in a Python literal."""
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)
