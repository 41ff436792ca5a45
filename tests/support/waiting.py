"""Waits for conditions that no component reports."""

import asyncio
from collections.abc import Awaitable, Callable

import asyncpg


async def until(met: Callable[[], Awaitable[bool]]) -> None:
    """Poll until the condition is met; for changes that nothing announces."""
    async with asyncio.timeout(60):
        while not await met():
            await asyncio.sleep(0.02)


async def until_blocked(pool: asyncpg.Pool | asyncpg.Connection, server_pid: int) -> None:
    """Wait until this backend waits for a lock."""
    async with asyncio.timeout(30):
        while not await pool.fetchval("SELECT cardinality(pg_blocking_pids($1)) > 0", server_pid):
            await asyncio.sleep(0.01)
