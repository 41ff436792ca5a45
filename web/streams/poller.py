"""Looks for all feeds of a process: those that are due while one is under way go together."""

import asyncio
from collections import deque
from typing import NamedTuple

import asyncpg

from db.notify import watch
from db.tail import Look, Since, look

# Feeds in one query. Each may have its share of a megabyte.
AT_ONCE = 32
# How long a mark lasts; a feed has it renewed at the latest with every second poll.
MARK_SECONDS = 60.0
ACQUIRE_SECONDS = 5.0


class Asked(NamedTuple):
    """A look that is wanted; `mark`: the log is to be marked as watched before."""

    since: Since
    mark: bool
    found: asyncio.Future[Look | None]


class Looks:
    """One query at a time, for as many feeds as wait for it."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool
        self._waiting: deque[Asked] = deque()
        self._task: asyncio.Task[None] | None = None

    async def look(self, since: Since, *, mark: bool) -> Look | None:
        """Look at one place; None where the job has no log.

        With `mark` the log's parts are announced for a minute, from before the look on.

        Raises:
            OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError: as of a query.
        """
        found: asyncio.Future[Look | None] = asyncio.get_running_loop().create_future()
        self._waiting.append(Asked(since, mark, found))
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        return await found

    async def _run(self) -> None:
        while self._waiting:
            some = [self._waiting.popleft() for _ in range(min(AT_ONCE, len(self._waiting)))]
            looks: list[Look | None] | Exception
            try:
                async with self._pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
                    if marks := {asked.since.job_id for asked in some if asked.mark}:
                        await watch(connection, marks, MARK_SECONDS)
                    looks = await look(connection, [asked.since for asked in some])
            except Exception as error:  # noqa: BLE001 - it is told to those who asked
                looks = error
            for at, asked in enumerate(some):
                if asked.found.done():  # its feed has ended
                    continue
                if isinstance(looks, Exception):
                    asked.found.set_exception(looks)
                else:
                    asked.found.set_result(looks[at])
        self._task = None
