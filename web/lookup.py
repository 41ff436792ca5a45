"""Finds the log of a request and starts to read it."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Literal, TypeVar

from litestar.exceptions import ValidationException

from db import maintenance, reading
from logflume.domain import MAX_JOB_ID, Log
from logflume.errors import ContentReplaced
from web.content import Content, check_not_expired
from web.services import Services

T = TypeVar("T")

# Attempts to read a log that is being replaced.
TRIES = 3


def integer(name: str, text: str) -> int:
    """Parse an id.

    Raises:
        ValidationException: it is not an integer of at most 63 bits.
    """
    # The length first: Python refuses to convert thousands of digits.
    if text.isascii() and text.isdecimal() and len(text) < 20 and int(text) <= MAX_JOB_ID:
        return int(text)
    raise ValidationException(f"{name} must be an integer between 0 and {MAX_JOB_ID}")


async def find_log(services: Services, id_: str, by: Literal["job_id", "id"] = "job_id") -> Log:
    """Find a log by job id or log id.

    Raises:
        ValidationException: the id is not an integer.
        UnknownLog: there is no such log.
    """
    number = integer(by, id_)
    find = reading.find if by == "job_id" else reading.find_by_id
    async with services.connection() as connection:
        return await find(connection, number)


async def find_whole(
    services: Services, id_: str, by: Literal["job_id", "id"], max_bytes: int
) -> tuple[Log, bytes | None]:
    """Find a log, with its content if that is in the database and at most `max_bytes` long.

    Raises:
        ValidationException: the id is not an integer.
        UnknownLog: there is no such log.
        UnderMaintenance: its parts must not be read now.
    """
    number = integer(by, id_)
    async with services.connection() as connection:
        return await reading.find_whole(connection, number, max_bytes, by=by)


async def check_maintenance(services: Services) -> None:
    """Check that the maintenance switch is off.

    Raises:
        UnderMaintenance: it is on.
    """
    async with services.connection() as connection:
        await maintenance.check(connection)


async def find_content(
    services: Services,
    log: Log,
    attempt: str | None = None,
    *,
    numbers: tuple[int, int] = reading.EVERY_NUMBER,
) -> Content:
    """Take a snapshot of the content of a log, or of an earlier attempt.

    `numbers`: of a log in parts, only those from the first to the last of these numbers.

    Raises:
        UnknownLog: the attempt is unknown, or its parts are gone.
        LogExpired: retention deleted the text.
        NotArchived: travis-logs archived the log, but the archive has no object.
    """
    async with services.connection() as connection:
        snapshot = await reading.snapshot(connection, log, attempt, numbers=numbers)
    log, stored = snapshot.log, None
    check_not_expired(log)
    if snapshot.parts is None and log.purged_at and log.content_sha256 is None:
        stored = await services.archive.head(log.job_id)
    return Content(services.pool, services.archive, snapshot, stored)


async def retry_replaced(read: Callable[[], Awaitable[T]]) -> T:
    """Read a log, again if it was replaced meanwhile.

    Raises:
        ContentReplaced: it was replaced during each of `TRIES` reads.
    """
    for _ in range(TRIES - 1):
        try:
            return await read()
        except ContentReplaced:
            continue
    return await read()


async def started(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Read the first piece, so that errors are raised before a status is sent."""
    first = await anext(pieces, b"")

    async def all_pieces() -> AsyncIterator[bytes]:
        yield first
        async for piece in pieces:
            yield piece

    return all_pieces()
