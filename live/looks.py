"""Looks for all feeds of a process: those that are due while one is under way go together."""

import asyncio
from collections import deque

import asyncpg

from db.follow import Look, Since, look

# Feeds in one query. Each may have its share of a megabyte.
AT_ONCE = 32
ACQUIRE_SECONDS = 5.0


class Looks:
    """One query at a time, for as many feeds as wait for it."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool
        self._waiting: deque[tuple[Since, asyncio.Future[Look | None]]] = deque()
        self._task: asyncio.Task[None] | None = None

    async def look(self, since: Since) -> Look | None:
        """Look at one place; None where the job has no log.

        Raises:
            OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError: as of a query.
        """
        found: asyncio.Future[Look | None] = asyncio.get_running_loop().create_future()
        self._waiting.append((since, found))
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        return await found

    async def _run(self) -> None:
        while self._waiting:
            some = [self._waiting.popleft() for _ in range(min(AT_ONCE, len(self._waiting)))]
            looks: list[Look | None] | Exception
            try:
                async with self._pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
                    looks = await look(connection, [since for since, _ in some])
            except Exception as error:  # noqa: BLE001 - it is told to those who asked
                looks = error
            for at, (_, found) in enumerate(some):
                if found.done():  # its feed has ended
                    continue
                if isinstance(looks, Exception):
                    found.set_exception(looks)
                else:
                    found.set_result(looks[at])
        self._task = None
