"""The load: jobs that run concurrently, and probes."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from db.errors import FAILURES
from tests.support.soak.jobs import Job
from tests.support.soak.system import System
from tests.support.soak.way import Counts, Runner, Way

FIRST_JOB, FIRST_PROBE = 1_000_000, 2_000_000
PROBE_SECONDS = 2
# Unfinished logs at which no new job begins: on a slow machine they would pile up.
MOST_UNFINISHED = 100
UNFINISHED = "SELECT count(*) FROM logs WHERE purged_at IS NULL AND NOT empty"


class Load:
    """Plays jobs, `at_once` at a time."""

    def __init__(self, system: System, seed: str, at_once: int) -> None:
        self.counts = Counts()
        self.jobs: list[Job] = []
        self._system = system
        self._seed = seed
        self._ids = itertools.count(FIRST_JOB)
        self._probes = itertools.count(FIRST_PROBE)
        self._at_once = at_once
        self._is_enough = asyncio.Event()
        self.way = Way(system, Runner(system.amqp_url, self.counts), self.counts)

    @asynccontextmanager
    async def playing(self) -> AsyncIterator[None]:
        """Play jobs for the duration of the block, then finish those that started."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self._at_once):
                group.create_task(self._play())
            try:
                yield
            finally:
                self._is_enough.set()

    async def _play(self) -> None:
        while not self._is_enough.is_set():
            if await self._unfinished() >= MOST_UNFINISHED:
                await asyncio.sleep(1)
                continue
            job = Job(self._seed, next(self._ids))
            self.jobs.append(job)
            await job.play(self.way)

    async def _unfinished(self) -> int:
        """Count the logs in progress; 0 while Postgres is down, for jobs go on meanwhile."""
        try:
            connection = await self._system.connect()
            try:
                count: int = await connection.fetchval(UNFINISHED)
            finally:
                await connection.close()
        except FAILURES:
            return 0
        return count

    async def probe(self) -> float:
        """Publish a log and wait until it is readable; returns the seconds it took."""
        began = time.monotonic()
        job = Job(self._seed, next(self._probes), "tiny")
        await job.play(self.way)
        self.jobs.append(job)  # what a probe that is given up has published is not known
        while await self.way.read(job.id) != job.model.content:
            await asyncio.sleep(0.05)
        return time.monotonic() - began

    async def probe_until(self, connection: asyncpg.Connection, condition: str) -> float:
        """Publish logs of one part until the row of one meets an SQL condition; returns seconds."""
        began = time.monotonic()
        jobs: list[int] = []
        query = f"SELECT EXISTS (SELECT FROM logs l WHERE job_id = ANY ($1) AND {condition})"
        while not await connection.fetchval(query, jobs):
            if time.monotonic() - began >= PROBE_SECONDS * len(jobs):
                job = Job(self._seed, next(self._probes), "single")
                jobs.append(job.id)
                await job.play(self.way)
                self.jobs.append(job)
            await asyncio.sleep(0.2)
        return time.monotonic() - began
