"""Waits for conditions that no component reports."""

import asyncio
from collections.abc import Awaitable, Callable


async def until(met: Callable[[], Awaitable[bool]]) -> None:
    """Postgres and counters tell nobody of a change: look until it is so."""
    async with asyncio.timeout(60):
        while not await met():
            await asyncio.sleep(0.02)


async def until_blocked(pool, server_pid: int) -> None:
    async with asyncio.timeout(30):
        while not await pool.fetchval("SELECT cardinality(pg_blocking_pids($1)) > 0", server_pid):
            await asyncio.sleep(0.01)
