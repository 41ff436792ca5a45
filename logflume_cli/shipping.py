"""Options that `run` and `ship` share."""

import click

MAX_JOB_ID = 2**63 - 1

job_id_option = click.option(
    "--job-id",
    type=click.IntRange(0, MAX_JOB_ID),
    help="Job id. Default: the job of the token, or a new one.",
)
strict_option = click.option(
    "--strict", is_flag=True, help="Exit with code 1 if output is missing in the log."
)
