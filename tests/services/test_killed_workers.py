"""A worker crashes at any await of any activity: the next try continues and the log is exact."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest
from temporalio.testing import ActivityEnvironment

from activities.types import AGGREGATE, ARCHIVE, DELETE_ARCHIVE, PURGE, RESTORE, VERIFY
from db.connect import open_pool
from logflume.archive.store import Archive
from tests.support.crash import EndAtAwait
from tests.support.lifecycle import LifecycleSteps, activities_of
from tests.support.parts import part, replace_whole, store_parts

SMALL = b"a log"
# The minimum size in S3, except for the last slice.
SLICE = 5 * 1024 * 1024


@pytest.fixture
def archive(settings):
    least = settings.s3.model_copy(update={"slice_bytes": SLICE})
    return Archive(least, 4)


IS_OVER = """
SELECT archive_verified AND purged_at IS NOT NULL AND content IS NULL FROM logs WHERE job_id = $1
"""


class Log(LifecycleSteps):
    """A log that can be brought to any step, and its expected content."""

    def __init__(self, pool, archive, job_id) -> None:
        super().__init__(pool, archive, job_id)
        self.pool = pool
        self.content: bytes | None = None

    async def store(self, *contents: bytes, begin: int = 0) -> None:
        parts = [part(self.job_id, number, one) for number, one in enumerate(contents, begin)]
        await store_parts(self.pool, parts)
        self.content = (self.content or b"") + b"".join(contents)

    async def write(self, content: bytes) -> None:
        await replace_whole(self.pool, self.job_id, content)
        self.content = content or None
        self.restart()


async def fresh(log: Log, content: bytes = SMALL) -> None:
    await log.store(content)


async def cleared(log: Log) -> None:
    await log.store(SMALL)
    await log.finish()
    await log.write(b"")


async def late(log: Log) -> None:
    """Parts arrive after their predecessors were dropped with their partition."""
    await log.store(SMALL)
    await log.finish()
    await log.pool.execute("DELETE FROM log_parts")
    await log.store(b", late", begin=1)


async def archived_again(log: Log) -> None:
    await log.store(SMALL)
    await log.finish()
    log.restart(restore=True)


async def merging(log: Log) -> None:
    await late(log)
    await log.until(RESTORE)
    await log.step()


CASES = {
    "aggregate": (fresh, AGGREGATE),
    "aggregate what was restored": (merging, AGGREGATE),
    "archive": (fresh, ARCHIVE),
    "archive again": (archived_again, ARCHIVE),
    "archive in slices": (partial(fresh, content=bytes(SLICE + 1)), ARCHIVE),
    "verify": (fresh, VERIFY),
    "purge": (fresh, PURGE),
    "delete": (cleared, DELETE_ARCHIVE),
    "restore": (late, RESTORE),
}
# One for each activity: a stopped worker still cleans up.
STOPPED = ("aggregate", "archive in slices", "verify", "purge", "delete", "restore")


@asynccontextmanager
async def killed(settings, archive, log: Log, at: int) -> AsyncIterator[bool]:
    """Start the next step in a worker that is killed at an await; False if it finished before.

    Its connections break. Its requests to S3 are executed all the same.
    """
    worker = await open_pool(settings.database, 2)
    activity = activities_of(worker, archive)[log.next](log.order)

    async def dying() -> bool:
        return await EndAtAwait(activity, at, None)

    try:
        was_killed = not await ActivityEnvironment().run(dying)
        worker.terminate()
        yield was_killed
    finally:
        with contextlib.suppress(RuntimeError):  # it tries to clean up
            activity.close()


async def cancelled(pool, archive, log: Log, at: int) -> bool:
    """Start the next step in a worker that is stopped at an await."""
    activity = activities_of(pool, archive)[log.next](log.order)

    async def stopping() -> None:
        task = asyncio.current_task()
        assert task
        await EndAtAwait(activity, at, task.cancel)

    try:
        await ActivityEnvironment().run(stopping)
    except asyncio.CancelledError:
        return True
    return False


async def in_the_end(log: Log) -> None:
    await log.finish()
    assert await log.archived() == log.content
    if log.content is not None:
        assert await log.pool.fetchval(IS_OVER, log.job_id)


async def prepared(pool, archive, numbers, prepare, step) -> Log:
    log = Log(pool, archive, next(numbers))
    await prepare(log)
    await log.until(step)
    return log


@pytest.mark.parametrize(("prepare", "step"), CASES.values(), ids=CASES.keys())
async def test_a_log_recovers_from_a_worker_killed_at_any_await(
    settings, pool, archive, numbers, prepare, step
):
    for at in itertools.count(1, 2):
        log = await prepared(pool, archive, numbers, prepare, step)
        async with killed(settings, archive, log, at) as was_killed:
            await in_the_end(log)
        if not was_killed:
            break
    assert at > 2


@pytest.mark.parametrize(("prepare", "step"), [CASES[one] for one in STOPPED], ids=STOPPED)
async def test_a_log_recovers_from_a_worker_stopped_at_any_await(
    pool, archive, numbers, prepare, step
):
    for at in itertools.count(0, 2):
        log = await prepared(pool, archive, numbers, prepare, step)
        was_cancelled = await cancelled(pool, archive, log, at)
        await in_the_end(log)
        if not was_cancelled:
            break
    assert at > 2
