"""Heartbeats for activities that are one long call."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from temporalio import activity

BEAT_SECONDS = 5.0


@asynccontextmanager
async def beating() -> AsyncIterator[None]:
    """Tell the server every few seconds that the activity in the block is alive.

    A local activity has nobody to tell: the worker itself waits for it.
    """
    if activity.info().is_local:
        yield
        return

    async def beat() -> None:
        while True:
            await asyncio.sleep(BEAT_SECONDS)
            activity.heartbeat()

    task = asyncio.create_task(beat())
    try:
        yield
    finally:
        task.cancel()
