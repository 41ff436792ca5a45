"""Cancels tasks, and waits until they have ended."""

import asyncio
from collections.abc import Collection, Coroutine
from typing import Any

AGAIN_SECONDS = 1.0


async def cancel(tasks: Collection[asyncio.Task[Any]]) -> None:
    """Cancel the tasks and return once all have ended; their results and errors are dropped.

    Cancels them repeatedly: `asyncio.wait_for` of Python 3.11, which aiormq uses, ignores a
    cancellation that arrives together with the result.
    """
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=AGAIN_SECONDS)
    await asyncio.gather(*tasks, return_exceptions=True)


async def first(*coroutines: Coroutine[Any, Any, Any]) -> None:
    """Wait until the first of them ends, and cancel the others; drops results and errors."""
    tasks = [asyncio.create_task(one) for one in coroutines]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await cancel(tasks)
