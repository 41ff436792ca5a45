"""`logflume share`: prints a signed link that gives read access to one log until it expires."""

from datetime import timedelta

import click

from logflume.errors import SettingsError
from logflume.settings import load_settings
from logflume_cli.duration import Duration
from logflume_cli.job_id import JobId
from web.auth import sign_link


@click.command()
@click.argument("job_id", type=JobId())
@click.option(
    "--for",
    "lifetime",
    type=Duration(),
    default="7d",
    show_default=True,
    help="How long the link is valid, e.g. 12h or 7d.",
)
def share(job_id: int, lifetime: timedelta) -> None:
    """Print a link to the log of JOB_ID that works without a token.

    Needs LOGFLUME_WEB__URL and LOGFLUME_WEB__LINK_SECRET. The link gives read access to this log
    only, until it expires. To revoke all links at once,
    change LOGFLUME_WEB__LINK_SECRET.
    """
    web = load_settings().web
    if not web.url:
        raise SettingsError(
            "LOGFLUME_WEB__URL is not set; set it to the public address of logflume web"
        )
    click.echo(f"{web.url}/jobs/{job_id}?share={sign_link(web, job_id, lifetime)}")
