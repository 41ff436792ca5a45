"""Headers in responses to parts: how often to send, and which numbers have not arrived."""

import asyncio
from collections.abc import Iterable
from contextlib import suppress

from litestar.datastructures import ResponseHeader

from db.errors import FAILURES
from db.missing import missing_numbers
from web.services import Services

FLUSH = "Logflume-Flush-Seconds"
MISSING = "Logflume-Missing-Parts"
WATCHED_SECONDS, UNWATCHED_SECONDS = 0.5, 5.0
# Drains store a part within a second: what is missing after this time, the sender repeats.
ANSWER_SECONDS = 5.0
MAX_RANGES = 100
FIRST_POLL_SECONDS, POLL_SECONDS = 0.05, 1.0

HEADERS = [
    ResponseHeader(
        name=FLUSH,
        description="seconds until the sender should send what it has by then: few while the log "
        "is being read",
        documentation_only=True,
    ),
    ResponseHeader(
        name=MISSING,
        description="only for a final part with a `total`: the numbers to send again, e.g. "
        "`3,7-9`, the lowest 100 ranges at most, or `none`; absent if the total was not stored in "
        "time. Repeat the call to ask again",
        documentation_only=True,
    ),
]


async def receipt(
    services: Services, job_ids: Iterable[int], finals: Iterable[tuple[int, str]]
) -> dict[str, str]:
    """Make the headers for parts of these jobs.

    `finals`: job and attempt of each final part with a total; only a single one is answered.
    """
    watched = any(map(services.hub.is_watched, job_ids))
    headers = {FLUSH: f"{WATCHED_SECONDS if watched else UNWATCHED_SECONDS:g}"}
    match [*finals]:
        case [(job_id, attempt)]:
            missing = await _missing(services, job_id, attempt)
            if missing is not None:
                headers[MISSING] = ",".join(map(_range, missing)) or "none"
    return headers


async def _missing(services: Services, job_id: int, attempt: str) -> list[tuple[int, int]] | None:
    """Wait until the drains have stored the attempt; returns what is missing by then.

    The parts are durable already, so a failure here only leaves the question open.
    """
    missing: list[tuple[int, int]] | None = None
    delay = FIRST_POLL_SECONDS
    with suppress(*FAILURES):
        async with asyncio.timeout(ANSWER_SECONDS):
            while missing is None or missing:
                await asyncio.sleep(delay)
                delay = min(2 * delay, POLL_SECONDS)
                async with services.hub.connection() as connection:
                    missing = await missing_numbers(connection, job_id, attempt, MAX_RANGES)
    return missing


def _range(numbers: tuple[int, int]) -> str:
    first, last = numbers
    return str(first) if first == last else f"{first}-{last}"
