"""`logflume token`: issues a token with which one job stores its log over HTTP."""

from datetime import timedelta

import click

from logflume.settings import load_settings
from logflume_cli.duration import Duration
from logflume_cli.job_id import JobId
from web.auth import sign_part_token


@click.command()
@click.argument("job_id", type=JobId())
@click.option(
    "--for",
    "lifetime",
    type=Duration(),
    default="1d",
    show_default=True,
    help="How long the token is valid, e.g. 6h; at least as long as the job runs.",
)
def token(job_id: int, lifetime: timedelta) -> None:
    """Print a token that stores parts of the log of JOB_ID, and does nothing else.

    Needs LOGFLUME_WEB__JWT_PRIVATE_KEY, whose public key logflume web has. Issue one for each run
    of a job: parts with the same token are one attempt.
    """
    click.echo(sign_part_token(load_settings().web, job_id, lifetime))
