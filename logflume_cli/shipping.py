"""Options that `run` and `ship` share."""

from collections.abc import Callable
from pathlib import Path

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
mask_option = click.option(
    "--mask",
    "names",
    metavar="NAME",
    multiple=True,
    help="Replace the value of this environment variable in the log; may be repeated.",
)
mask_file_option = click.option(
    "--mask-file",
    type=click.Path(path_type=Path),
    help="Replace each line of this file in the log.",
)


def shipping_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that `run` and `ship` share."""
    for option in (mask_file_option, mask_option, strict_option, job_id_option):
        command = option(command)
    return command
