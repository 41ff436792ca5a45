"""Shared by the commands that only need the database."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from db.connect import Connection, open_pool
from logflume.settings import load_settings

T = TypeVar("T")


def on_database(action: Callable[[Connection], Awaitable[T]]) -> T:
    """Run an action of a command on a connection to the database."""

    async def act() -> T:
        database = load_settings().database
        async with await open_pool(database, 1) as pool, pool.acquire() as connection:
            return await action(connection)

    return asyncio.run(act())
