"""Job ids on the command line."""

from typing import Any

import click

MAX_JOB_ID = 2**63 - 1


class JobId(click.ParamType[int]):
    """A job id; any other text is a usage error."""

    name = "job_id"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Parse it."""
        text = str(value)
        # The length first: Python refuses to convert thousands of digits.
        is_number = text.isascii() and text.isdecimal() and len(text) < 20
        if not is_number or int(text) > MAX_JOB_ID:
            self.fail(f"{value} is not a job id, a number up to {MAX_JOB_ID}", param, ctx)
        return int(text)
