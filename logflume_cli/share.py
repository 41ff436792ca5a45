"""`logflume share`: a link that lets whoever has it read one log for a while."""

from datetime import timedelta

import click

from logflume.domain import MAX_JOB_ID
from logflume.errors import SettingsError
from logflume.settings import load_settings
from logflume_cli.duration import Duration
from web.auth import sign_link


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
