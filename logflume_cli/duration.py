"""Durations as command-line options."""

import re
from datetime import timedelta
from typing import Any

import click

UNITS = {"m": "minutes", "h": "hours", "d": "days"}
MAXIMUM = timedelta(days=366)


class Duration(click.ParamType[timedelta]):
    """A duration such as 30m, 12h or 7d."""

    name = "duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> timedelta:
        """Parse it; a usage error if it is invalid."""
        match = re.fullmatch(r"(\d{1,6})([mhd])", str(value), re.ASCII)
        duration = timedelta(**{UNITS[match[2]]: int(match[1])}) if match else timedelta()
        if not timedelta() < duration <= MAXIMUM:
            self.fail("expected a duration such as 30m, 12h or 7d, at most a year", param, ctx)
        return duration
