"""The wire contract of parts, shared by all who publish or consume them: names and field rules."""

import asyncio
import base64
import binascii
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from aio_pika import ExchangeType
from aio_pika.abc import AbstractChannel, AbstractExchange
from aio_pika.exceptions import CONNECTION_EXCEPTIONS
from aiormq.exceptions import InvalidFrameError

from domain import LAST, MAX_JOB_ID
from errors import ComponentError, RejectedPart

EXCHANGE = "reporting"
QUEUE = "reporting.jobs.logs"
ROUTING_KEY = QUEUE
SHARDED_EXCHANGE = "reporting.jobs.logs_sharded"
REJECTED_QUEUE = "reporting.jobs.logs.rejected"
MESSAGE_TYPE = "job:test:log"
CONTENT_TYPE = "application/json"


async def declare(channel: AbstractChannel) -> AbstractExchange:
    """Declare exchange and queue as every runner does; arguments must match theirs exactly."""
    exchange = await channel.declare_exchange(EXCHANGE, ExchangeType.TOPIC, durable=True)
    queue = await channel.declare_queue(QUEUE, durable=True)
    await queue.bind(exchange, ROUTING_KEY)
    return exchange


def describe(url: str) -> str:
    """Name the broker for a person, without user and password."""
    parts = urlsplit(url)
    port = parts.port or (5671 if parts.scheme == "amqps" else 5672)
    return f"RabbitMQ at {parts.hostname}:{port}{parts.path}"


@contextmanager
def reaching(where: str) -> Iterator[None]:
    """Make one error of all that the library raises where a connection is not to be had, or gone.

    Raises:
        ComponentError: what is wrong, with `where` before it.
    """
    try:
        yield
    except (*CONNECTION_EXCEPTIONS, TimeoutError, ValueError) as error:
        raise ComponentError(f"{where}: {said(error)}") from error
    except asyncio.CancelledError as error:
        # The library cancels, too: whoever waits on a connection that somebody else closes.
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise ComponentError(f"{where}: the connection was closed") from error
    except Exception as error:
        # It raises this very class where the broker went between two frames.
        if type(error) is not Exception:
            raise
        raise ComponentError(f"{where}: the broker ended the connection") from error


def said(error: BaseException) -> str:
    """Tell what went wrong with RabbitMQ, for a person."""
    if isinstance(error, InvalidFrameError):
        # All that the library tells is a frame: of the handshake the last step alone ends so.
        return "refuses the vhost: make it, or give this user permissions in it"
    return str(error) or type(error).__name__


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
