"""Job ids on the command line."""

from typing import Any

import click

from logflume.contract import parse_job_id
from logflume.errors import InvalidMessage, LogflumeError


class JobId(click.ParamType[int]):
    """A job id; any other text is an error of one line."""

    name = "job_id"

    def convert(
        self,
        value: Any,
        param: click.Parameter | None,  # noqa: ARG002
        ctx: click.Context | None,  # noqa: ARG002
    ) -> int:
        """Parse it."""
        try:
            return parse_job_id(value)
        except InvalidMessage as error:
            raise LogflumeError(f"{value} is not a job id: {error}") from None
