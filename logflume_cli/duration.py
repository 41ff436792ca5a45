"""Times as people write them on a command line."""

import re
from datetime import timedelta
from typing import Any

import click

UNITS = {"m": "minutes", "h": "hours", "d": "days"}
LONGEST = timedelta(days=366)


class Duration(click.ParamType[timedelta]):
    """A time such as 30m, 12h or 7d."""

    name = "time"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> timedelta:
        """Read it."""
        found = re.fullmatch(r"(\d{1,6})([mhd])", str(value), re.ASCII)
        lifetime = timedelta(**{UNITS[found[2]]: int(found[1])}) if found else timedelta()
        if not timedelta() < lifetime <= LONGEST:
            self.fail("a time such as 30m, 12h or 7d, of a year at most", param, ctx)
        return lifetime
