"""Readiness: checks the dependencies of a process, each with a timeout."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

CHECK_SECONDS = 3

Check = Callable[[], Awaitable[object]]
T = TypeVar("T")


async def check_all(dependencies: Mapping[str, Check]) -> dict[str, str]:
    """Check each dependency; returns `ok` or its error by name."""
    results = await asyncio.gather(*map(_check, dependencies.values()))
    return dict(zip(dependencies, results, strict=True))


async def _check(check: Check) -> str:
    try:
        await in_time(check)
    except Exception as error:  # noqa: BLE001 - readiness reports any error
        return describe_error(error)
    return "ok"


async def in_time(check: Callable[[], Awaitable[T]]) -> T:
    """Await the result for at most 3 s; a check that takes longer is cancelled, not awaited.

    `asyncio.timeout` would wait for the cancellation, and a pool whose Postgres hangs does not
    release a connection until Postgres answers.

    Raises:
        TimeoutError: there was no result within 3 s.
    """
    task = asyncio.ensure_future(check())
    # After the timeout it is not awaited; consume the exception.
    task.add_done_callback(lambda done: done.cancelled() or done.exception())
    try:
        if not (await asyncio.wait({task}, timeout=CHECK_SECONDS))[0]:
            raise TimeoutError
        return await task
    finally:
        task.cancel()


def describe_error(error: Exception) -> str:
    """The error's text, or its type if it has none."""
    return str(error) or type(error).__name__
