"""Heartbeats for activities that are one long call."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from temporalio import activity

BEAT_SECONDS = 5.0


@asynccontextmanager
async def beating(progress: Callable[[], Any] | None = None) -> AsyncIterator[None]:
    """Tell the server every few seconds that the activity in the block is alive.

    With it goes what `progress` tells, so that the next try can go on from there. A local activity
    has nobody to tell: the worker itself waits for it.
    """
    if activity.info().is_local:
        yield
        return

    async def beat() -> None:
        while True:
            await asyncio.sleep(BEAT_SECONDS)
            activity.heartbeat(*([progress()] if progress else []))

    task = asyncio.create_task(beat())
    try:
        yield
    except Exception:
        if progress:
            activity.heartbeat(progress())
        raise
    finally:
        task.cancel()
