"""Heartbeats for activities that are one long call."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from temporalio import activity

HEARTBEAT_SECONDS = 5.0


@asynccontextmanager
async def heartbeating(progress: Callable[[], Any] | None = None) -> AsyncIterator[None]:
    """Heartbeat every few seconds while the block runs.

    Each heartbeat carries `progress()`, so that the next try can continue from there. A local
    activity does not heartbeat: its worker waits for it.
    """
    if activity.info().is_local:
        yield
        return

    async def heartbeat() -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_SECONDS)
            activity.heartbeat(*([progress()] if progress else []))

    task = asyncio.create_task(heartbeat())
    try:
        yield
    except Exception:
        if progress:
            activity.heartbeat(progress())
        raise
    finally:
        task.cancel()
