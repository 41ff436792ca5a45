"""The wire contract of parts: names of exchanges and queues, and the rules of the fields."""

import base64
import binascii

from logflume.domain import LAST, MAX_JOB_ID
from logflume.errors import RejectedPart

EXCHANGE = "reporting"
QUEUE = "reporting.jobs.logs"
ROUTING_KEY = QUEUE
SHARDED_EXCHANGE = "reporting.jobs.logs_sharded"
REJECTED_QUEUE = "reporting.jobs.logs.rejected"
MESSAGE_TYPE = "job:test:log"
CONTENT_TYPE = "application/json"


def parse_job_id(value: int | str) -> int:
    """Read a job id, a number or its decimal digits.

    Raises:
        RejectedPart: it is neither, or beyond 63 bits.
    """
    if isinstance(value, str):
        if not (value.isascii() and value.isdecimal() and len(value) <= len(str(MAX_JOB_ID))):
            raise RejectedPart("id: not a decimal number of at most 19 digits")
        value = int(value)
    if not 0 <= value <= MAX_JOB_ID:
        raise RejectedPart(f"id: not between 0 and {MAX_JOB_ID}")
    return value


def parse_number(value: int | str) -> int:
    """Read a part's number; the text `last` is 2,147,483,647.

    Raises:
        RejectedPart: it is another text, or out of bounds.
    """
    if value == "last":
        return LAST
    if isinstance(value, str) or not 0 <= value <= LAST:
        raise RejectedPart(f"number: neither 'last' nor a number between 0 and {LAST}")
    return value


def parse_base64(text: str) -> bytes:
    """Read base64; line breaks are allowed, anything else outside the alphabet is a mistake.

    Raises:
        RejectedPart: it is no base64.
    """
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise RejectedPart("log: not base64") from None
