"""Running coroutines: until a person ends them, and together."""

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any


def run_until_signal(work: Coroutine[Any, Any, int]) -> int:
    """Run `work` and return its exit code; SIGINT and SIGTERM cancel it, once, and give 0.

    What `work` does in its `finally` clauses is not interrupted by further signals.
    """
    return asyncio.run(_run(work))


async def together(*work: Coroutine[Any, Any, None]) -> None:
    """Run all at once; the first error ends the others and is raised as it is."""
    try:
        async with asyncio.TaskGroup() as group:
            for item in work:
                group.create_task(item)
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None


async def _run(work: Coroutine[Any, Any, int]) -> int:
    task = asyncio.ensure_future(work)

    def end() -> None:
        if not task.cancelling():
            task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, end)
    try:
        return await task
    except asyncio.CancelledError:
        return 0
