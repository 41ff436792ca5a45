"""`logflume share`: a link that lets whoever has it read one log for a while."""

import re
from datetime import timedelta
from typing import Any

import click

from domain import MAX_JOB_ID
from errors import SettingsError
from settings import load_settings
from web.auth import sign_link

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


@click.command()
@click.argument("job_id", type=click.IntRange(min=0, max=MAX_JOB_ID))
@click.option(
    "--for", "lifetime", type=Duration(), default="7d", show_default=True, help="How long it opens."
)
def share(job_id: int, lifetime: timedelta) -> None:
    """Print a link to the log of JOB_ID that needs no token.

    It opens this one log, for reading, until its time is over; a new LOGFLUME_WEB__LINK_SECRET
    ends all links at once.
    """
    web = load_settings().web
    if not web.url:
        raise SettingsError("LOGFLUME_WEB__URL is not set: a link needs the web's own address")
    click.echo(f"{web.url}/jobs/{job_id}?share={sign_link(web, job_id, lifetime)}")
