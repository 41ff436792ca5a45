"""Readiness: asks the dependencies of a process, each for a bounded time."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

CHECK_SECONDS = 3

Ask = Callable[[], Awaitable[object]]
T = TypeVar("T")


async def check_all(dependencies: Mapping[str, Ask]) -> dict[str, str]:
    """Ask each dependency: `ok`, or what is wrong with it."""
    answers = await asyncio.gather(*map(_check, dependencies.values()))
    return dict(zip(dependencies, answers, strict=True))


async def _check(ask: Ask) -> str:
    try:
        await in_time(ask)
    except Exception as error:  # noqa: BLE001 - readiness must report whatever is wrong
        return describe_error(error)
    return "ok"


async def in_time(ask: Callable[[], Awaitable[T]]) -> T:
    """Wait for an answer, not for the end of a question that is given up.

    A pool whose Postgres has stopped takes no connection back until that took note of it.

    Raises:
        TimeoutError: there is none within 3 s.
    """
    asked = asyncio.ensure_future(ask())
    # Whatever it comes to after that, nobody is left to hear of it.
    asked.add_done_callback(lambda it: it.cancelled() or it.exception())
    try:
        if not (await asyncio.wait({asked}, timeout=CHECK_SECONDS))[0]:
            raise TimeoutError
        return await asked
    finally:
        asked.cancel()


def describe_error(error: Exception) -> str:
    """The error's text; its type where it has none."""
    return str(error) or type(error).__name__
