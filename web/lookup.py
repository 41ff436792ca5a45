"""Finding the log that a call is about, and beginning to read it."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Literal, TypeVar

from litestar.exceptions import ValidationException

from db import maintenance, reading
from logflume.domain import MAX_JOB_ID, Log
from logflume.errors import ContentReplaced
from web.content import ACQUIRE_SECONDS, Content, open_content
from web.services import Services

T = TypeVar("T")

# A log that is replaced again and again while it is being opened is not ours to wait for.
TRIES = 3


def integer(name: str, text: str) -> int:
    """Read an id.

    Raises:
        ValidationException: it is no integer, or beyond 63 bits.
    """
    # The length first: turning thousands of digits into a number is refused by Python itself.
    if text.isascii() and text.isdecimal() and len(text) < 20 and int(text) <= MAX_JOB_ID:
        return int(text)
    raise ValidationException(f"{name} must be an integer between 0 and {MAX_JOB_ID}")


async def find_log(services: Services, id_: str, by: Literal["job_id", "id"] = "job_id") -> Log:
    """Find a log by its job's id, or by its own.

    Raises:
        ValidationException: the id is no integer.
        UnknownLog: there is none.
    """
    number = integer(by, id_)
    find = reading.find if by == "job_id" else reading.find_by_id
    async with services.pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
        return await find(connection, number)


async def find_whole(
    services: Services, id_: str, by: Literal["job_id", "id"], most: int
) -> tuple[Log, bytes | None]:
    """Find a log, and its content where it can be had at once and is of at most `most` bytes.

    Raises:
        ValidationException: the id is no integer.
        UnknownLog: there is none.
        UnderMaintenance: an operator keeps everyone away from its parts.
    """
    number = integer(by, id_)
    async with services.pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
        return await reading.find_whole(connection, number, most, by=by)


async def check_maintenance(services: Services) -> None:
    """Find out whether parts may be read and written.

    Raises:
        UnderMaintenance: an operator keeps everyone away from them.
    """
    async with services.pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
        await maintenance.check(connection)


async def find_content(services: Services, log: Log, attempt: str | None = None) -> Content:
    """Find out what a log is made of now.

    Raises:
        UnknownLog: it has no such attempt.
    """
    return await open_content(services.pool, services.archive, log, attempt)


async def settled(read: Callable[[], Awaitable[T]]) -> T:
    """Read a log; one that is replaced just then is read again.

    Raises:
        ContentReplaced: it was replaced again and again.
    """
    for _ in range(TRIES - 1):
        try:
            return await read()
        except ContentReplaced:
            continue
    return await read()


async def started(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Read the first piece, so that what is wrong is known before a status is sent."""
    first = await anext(pieces, b"")

    async def all_of_it() -> AsyncIterator[bytes]:
        yield first
        async for piece in pieces:
            yield piece

    return all_of_it()
