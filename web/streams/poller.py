"""Polls Postgres for all feeds of a process; polls that wait for one query share the next."""

import asyncio
from collections import deque
from typing import NamedTuple

import asyncpg

from db.notify import watch
from db.tail import Since, TailPage, read_tails

# Feeds in one query; they share about a megabyte of parts.
FEEDS_PER_QUERY = 32
# How long a log stays marked as watched; its feed renews that at least every second poll.
MARK_SECONDS = 60.0
# The longest wait for a connection; requests are then answered with 503.
ACQUIRE_SECONDS = 5.0


class _Poll(NamedTuple):
    since: Since
    mark: bool
    result: asyncio.Future[TailPage | None]


class BatchedPoller:
    """Runs one query at a time, for as many feeds as are waiting."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool
        self._waiting: deque[_Poll] = deque()
        self._task: asyncio.Task[None] | None = None

    async def poll(self, since: Since, *, mark: bool) -> TailPage | None:
        """Read what is new since a position; None if the job has no log.

        With `mark` the log is first marked as watched: for a minute its parts are announced.

        Raises:
            One of `db.errors.FAILURES`: the query failed.
        """
        result: asyncio.Future[TailPage | None] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Poll(since, mark, result))
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        return await result

    async def _run(self) -> None:
        while self._waiting:
            count = min(FEEDS_PER_QUERY, len(self._waiting))
            batch = [self._waiting.popleft() for _ in range(count)]
            try:
                pages: list[TailPage | None] | Exception = await self._query(batch)
            except Exception as error:  # noqa: BLE001 - raised in each feed that waits
                pages = error
            for index, poll in enumerate(batch):
                if poll.result.done():  # its feed was closed
                    continue
                if isinstance(pages, Exception):
                    poll.result.set_exception(pages)
                else:
                    poll.result.set_result(pages[index])
        self._task = None

    async def _query(self, batch: list[_Poll]) -> list[TailPage | None]:
        async with self._pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
            if marks := {poll.since.job_id for poll in batch if poll.mark}:
                await watch(connection, marks, MARK_SECONDS)
            return await read_tails(connection, [poll.since for poll in batch])
