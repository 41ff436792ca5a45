"""Which logs have work left: what the sweep finds in real Postgres."""

import asyncio
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from db import aggregation, logs
from db.parts import store_batch
from db.pending import FIND, find_pending, mark_empty
from logflume.domain import LAST
from tests.support.parts import part, write_whole
from tests.support.waiting import until_blocked

QUIET, PURGE = 600, 6 * 3600


class Finder:
    """Finds pending logs as if more time had passed."""

    def __init__(self, connection):
        self.connection = connection

    async def find(self, after: int = 0, count: int = 100):
        return await find_pending(self.connection, after, QUIET, PURGE, count)

    async def jobs(self) -> list[int]:
        return [one.job_id for one in await self.find()]

    async def pass_seconds(self, seconds: float) -> None:
        """Move all writes into the past."""
        by = timedelta(seconds=seconds)
        await self.connection.execute(
            "UPDATE logs SET updated_at = updated_at - $1::interval,"
            " archived_at = archived_at - $1::interval",
            by,
        )
        # In production the time of a part only changes in a rescue.
        await self.connection.execute(
            "UPDATE log_parts SET created_at = created_at - $1::interval", by
        )

    async def archive(self, job_id: int) -> str:
        made = await aggregation.aggregate(self.connection, job_id, force=True, restore=False)
        await logs.mark_archiving(self.connection, job_id, made.sha256)
        assert await logs.mark_verified(self.connection, job_id, made.sha256)
        return made.sha256


@pytest.fixture
async def finder(pool):
    async with pool.acquire() as connection:
        yield Finder(connection)


async def test_a_log_with_parts_is_pending_after_the_quiet_time(finder, job_id):
    await store_batch(finder.connection, [part(job_id, 0, b"a")])
    await finder.pass_seconds(QUIET - 60)
    assert await finder.jobs() == []
    await finder.pass_seconds(120)
    [found] = await finder.find()
    assert (found.job_id, found.outdated, found.bare) == (job_id, False, False)
    now = msgspec.structs.replace(part(job_id, 1, b"b"), received_at=datetime.now(UTC))
    await store_batch(finder.connection, [now])  # the job goes on
    assert await finder.jobs() == []


async def test_a_log_is_pending_until_every_step_is_done(finder, job_id):
    await store_batch(finder.connection, [part(job_id, 0, b"a", final=True)])
    made = await aggregation.aggregate(finder.connection, job_id, force=True, restore=False)
    await finder.pass_seconds(2 * QUIET)
    assert await finder.jobs() == [job_id]  # the archive
    await logs.mark_archiving(finder.connection, job_id, made.sha256)
    await finder.pass_seconds(2 * QUIET)
    assert await finder.jobs() == [job_id]  # its verification
    await logs.mark_verified(finder.connection, job_id, made.sha256)
    await finder.pass_seconds(2 * QUIET)
    assert await finder.jobs() == []  # it waits for its purge, rightly
    await finder.pass_seconds(PURGE)
    assert await finder.jobs() == [job_id]  # which is overdue
    await logs.purge(finder.connection, job_id, made.sha256)
    await finder.pass_seconds(2 * QUIET)
    assert await finder.jobs() == []


async def test_late_parts_make_a_finished_log_pending(finder, job_id):
    await store_batch(finder.connection, [part(job_id, 0, b"a", final=True)])
    await logs.purge(finder.connection, job_id, await finder.archive(job_id))
    await store_batch(finder.connection, [part(job_id, 1, b"late")])
    await finder.pass_seconds(2 * QUIET)
    assert await finder.jobs() == [job_id]


async def test_removed_text_is_pending_until_it_is_deleted_from_the_archive(finder, job_id):
    await store_batch(finder.connection, [part(job_id, 0, b"secret", final=True)])
    await logs.purge(finder.connection, job_id, await finder.archive(job_id))
    await write_whole(finder.connection, job_id, b"")
    await finder.pass_seconds(2 * QUIET)
    [found] = await finder.find()
    assert found.outdated
    assert not await mark_empty(finder.connection, job_id)
    for due in (True, False):  # checked again once
        await logs.mark_archive_deleted(finder.connection, job_id, 0, found=False)
        [found] = await finder.find()
        assert (found.outdated, found.bare) == (due, not due)


@pytest.mark.parametrize(
    "again",
    [{"attempt": "b"}, {"attempt": ""}, {"attempt": "", "number": LAST}],
    ids=["a new run", "no uuid", "last"],
)
async def test_an_empty_log_is_pending_again_once_parts_arrive(finder, job_id, again):
    await store_batch(finder.connection, [part(job_id, 0, b"secret")])
    await write_whole(finder.connection, job_id, b"")
    await logs.mark_archive_deleted(finder.connection, job_id, 0, found=False)
    await finder.pass_seconds(2 * QUIET)
    assert await finder.jobs() == [job_id]
    assert await mark_empty(finder.connection, job_id)
    assert await finder.jobs() == []
    await store_batch(finder.connection, [part(job_id, **{"number": 0, "content": b"x"} | again)])
    await finder.pass_seconds(2 * QUIET)
    [found] = await finder.find()
    assert not found.bare
    assert not await mark_empty(finder.connection, job_id)


async def test_content_written_whole_makes_an_empty_log_pending(finder, job_id):
    await write_whole(finder.connection, job_id, b"")
    await logs.mark_archive_deleted(finder.connection, job_id, 0, found=False)
    assert await mark_empty(finder.connection, job_id)
    await write_whole(finder.connection, job_id, b"text")
    await logs.mark_archive_deleted(finder.connection, job_id, 0, found=False)
    await finder.pass_seconds(2 * QUIET)
    assert await finder.jobs() == [job_id]


@pytest.mark.parametrize("number", [0, LAST])
async def test_a_log_is_not_marked_empty_while_parts_are_written(pool, finder, job_id, number):
    await write_whole(finder.connection, job_id, b"")
    await logs.mark_archive_deleted(finder.connection, job_id, 0, found=False)
    async with pool.acquire() as drain:
        async with drain.transaction():
            await store_batch(drain, [part(job_id, number, b"x", attempt="")])
            marked = asyncio.create_task(mark_empty(finder.connection, job_id))
            await until_blocked(pool, finder.connection.get_server_pid())
        assert not await marked


@pytest.mark.parametrize("number", [0, LAST])
async def test_parts_wait_for_the_empty_mark_and_clear_it(pool, finder, job_id, number):
    await write_whole(finder.connection, job_id, b"")
    await logs.mark_archive_deleted(finder.connection, job_id, 0, found=False)
    async with pool.acquire() as drain:
        async with finder.connection.transaction():
            assert await mark_empty(finder.connection, job_id)
            stored = asyncio.create_task(
                store_batch(drain, [part(job_id, number, b"x", attempt="")])
            )
            await until_blocked(pool, drain.get_server_pid())
        await stored
    assert await pool.fetchval("SELECT NOT empty FROM logs")


async def test_pages_are_ordered_by_id(finder, job_id):
    jobs = [job_id * 1000 + n for n in range(5)]
    await store_batch(finder.connection, [part(job, 0, b"a") for job in jobs])
    await finder.pass_seconds(2 * QUIET)
    first = await finder.find(count=2)
    second = await finder.find(after=first[-1].id, count=2)
    third = await finder.find(after=second[-1].id, count=2)
    assert [len(page) for page in (first, second, third)] == [2, 2, 1]
    assert sorted(one.job_id for page in (first, second, third) for one in page) == jobs


async def test_the_cost_of_the_sweep_depends_only_on_pending_logs(finder, job_id):
    """The index that is scanned contains only pending logs, however many others exist."""
    await finder.connection.execute(
        "INSERT INTO logs (job_id, created_at, updated_at, aggregated_at, archived_at,"
        " archive_verified, purged_at) SELECT j, t, t, t, t, true, t"
        " FROM generate_series($1::bigint, $1 + 20000) j, (SELECT now() - interval '1 day') p (t)",
        job_id * 100_000,
    )
    await store_batch(finder.connection, [part(job_id, 0, b"a")])
    await finder.pass_seconds(2 * QUIET)
    await finder.connection.execute("VACUUM ANALYZE logs")
    size = await finder.connection.fetchval("SELECT pg_relation_size('logs_pending')")
    plan = await finder.connection.fetch("EXPLAIN " + FIND, 0, QUIET, PURGE, 100)
    assert "logs_pending" in "\n".join(row[0] for row in plan)
    assert size < 10 * 8192
