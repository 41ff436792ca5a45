"""Runs coroutines until a signal, or concurrently."""

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any


def run_until_signal(work: Coroutine[Any, Any, int]) -> int:
    """Run `work` and return its exit code; the first SIGINT or SIGTERM cancels it, which gives 0.

    Further signals do not interrupt its `finally` clauses.
    """
    return asyncio.run(_run(work))


async def together(*work: Coroutine[Any, Any, None]) -> None:
    """Run all concurrently; the first error cancels the others and is raised unwrapped."""
    try:
        async with asyncio.TaskGroup() as group:
            for item in work:
                group.create_task(item)
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None


async def _run(work: Coroutine[Any, Any, int]) -> int:
    task = asyncio.ensure_future(work)

    def cancel() -> None:
        if not task.cancelling():
            task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, cancel)
    try:
        return await task
    except asyncio.CancelledError:
        return 0
