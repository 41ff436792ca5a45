"""Partitions of parts in real Postgres: created, cleared of unfinished logs, dropped."""

import asyncio
from datetime import datetime, timedelta

import asyncpg
import pytest

from db import aggregation, holds, partitions, reading
from db.connect import open_pool
from db.parts import store_batch
from logflume.errors import PartitionError
from tests.support.partitions import (
    DAY,
    HOUR,
    LOCK_SECONDS,
    RETENTION,
    ago,
    drop,
    facts,
    make_past,
    name_of,
    old_part,
)
from tests.support.parts import content, finish, part, row_content
from tests.support.waiting import until

pytestmark = pytest.mark.usefixtures("at_any_hour")


async def make(connection, interval="daily", premake=7) -> tuple[list[datetime], list[datetime]]:
    made: list[datetime] = []
    blocked = await partitions.make_ahead(connection, interval, premake, LOCK_SECONDS, made.append)
    return made, blocked


# Making


def test_yesterdays_partition_is_needed_for_minutes_after_midnight(monkeypatch):
    """Parts received just before midnight may not be committed yet."""
    monkeypatch.setattr(partitions, "COMMITTED_AFTER", timedelta(minutes=10))
    midnight = ago(0).replace(hour=0)
    days = [
        partitions.Partition(f"d{n}", midnight + n * DAY, midnight + (n + 1) * DAY) for n in (-1, 0)
    ]
    for minutes, at in ((5, -1), (15, 0)):
        found = partitions.Partitions(days, "default", midnight + timedelta(minutes=minutes))
        assert found.refuge == days[at + 1]
        bare = partitions.Partitions([], "default", found.now)
        first, *_ = partitions.missing(bare, DAY, 0)
        assert first == (days[at + 1].begin, days[at + 1].end)


async def test_partitions_are_created_ahead_and_existing_ones_stay(connection):
    made, blocked = await make(connection, premake=9)
    assert (len(made), blocked) == (2, [])
    found = await partitions.partitions(connection)
    assert found.ranges[-1].end == ago(-10).replace(hour=0)
    assert all(
        one.end == two.begin for one, two in zip(found.ranges, found.ranges[1:], strict=False)
    )
    assert await make(connection, premake=9) == ([], [])
    config = await connection.fetchrow(
        "SELECT partition_interval::interval AS interval, retention, automatic_maintenance"
        " FROM partman.part_config"
    )
    assert tuple(config) == (DAY, None, "off")


async def test_a_new_interval_applies_after_existing_partitions(connection):
    await make(connection, "hourly", 9 * 24)
    found = await partitions.partitions(connection)
    assert {one.end - one.begin for one in found.ranges} == {DAY, HOUR}
    await make(connection, "daily", 12)
    found = await partitions.partitions(connection)
    # The gap between the last hour and midnight is one shorter partition.
    assert all(
        one.end == two.begin for one, two in zip(found.ranges, found.ranges[1:], strict=False)
    )
    assert [one.end - one.begin for one in found.ranges[-2:]] == [DAY, DAY]
    assert found.ranges[-1].end == ago(-13).replace(hour=0)


async def test_parts_in_the_default_partition_are_moved_and_block_no_partition(connection, job_id):
    """Parts from clocks that are wrong by days, in both directions."""
    parts = [
        old_part(job_id, 0, b"zero ", at=ago(400)),
        old_part(job_id, 1, b"one", at=ago(1 / 24), final=True),
        old_part(job_id, 0, b"counts ", at=ago(-8)),
    ]
    await store_batch(connection, parts)
    before = await facts(connection, job_id)
    assert await content(connection, job_id) == b"counts one"
    made, blocked = await make(connection, premake=9)
    assert (len(made), blocked) == (1, [ago(-8).replace(hour=0)])
    for log_id, whole in await partitions.strays(connection):
        assert await partitions.rescue(connection, log_id, whole=whole) == 3
    assert await partitions.strays(connection) == []
    assert await facts(connection, job_id) == before
    found = await partitions.partitions(connection)
    assert not await connection.fetchval(f"SELECT count(*) FROM {found.default}")
    assert await make(connection, premake=9) == ([ago(-8).replace(hour=0)], [])


async def test_another_table_with_the_name_of_a_partition_is_an_error(connection):
    # The names of pg_partman 4 and 5; only one of them is in use.
    for name in (f"log_parts_p{ago(-8):%Y_%m_%d}", f"log_parts_p{ago(-8):%Y%m%d}"):
        await connection.execute(f"CREATE TABLE {name} ()")
    with pytest.raises(PartitionError, match="rename it"):
        await make(connection, premake=9)


# Dropping


async def test_only_partitions_older_than_the_retention_are_dropped(connection):
    await make_past(connection)
    expired = await partitions.expired(connection, RETENTION)
    assert len(expired) == 8
    for name in expired:
        assert await drop(connection, name)
    assert await partitions.expired(connection, RETENTION) == []
    assert await drop(connection, expired[0])  # it is gone: nothing to do
    yesterday = await name_of(connection, ago(1))
    with pytest.raises(PartitionError, match="it stays"):
        await drop(connection, yesterday)


@pytest.mark.parametrize(
    "made_unfinished",
    [
        "archive_verified = false",
        "purged_at = NULL",
        "late_parts = true",
        "aggregated_at = NULL, archive_verified = false, purged_at = NULL",
    ],
)
async def test_a_partition_with_parts_of_an_unfinished_log_is_not_dropped(
    connection, job_id, made_unfinished
):
    await make_past(connection)
    for job in (job_id, job_id + 10_000):
        await store_batch(connection, [old_part(job, 0, b"text", at=ago(4), final=True)])
        await finish(connection, job)
    await connection.execute(f"UPDATE logs SET {made_unfinished} WHERE job_id = $1", job_id)
    name = await name_of(connection, ago(4))
    [log_id] = await partitions.unfinished(connection, name)
    assert not await drop(connection, name)
    assert await connection.fetchval(f"SELECT count(*) FROM {name}") == 2
    await partitions.rescue(connection, log_id)
    assert await drop(connection, name)
    assert await connection.fetchval("SELECT array_agg(log_id) FROM log_parts") == [log_id]


async def test_parts_of_superseded_attempts_of_a_held_log_stay(connection, job_id):
    await make_past(connection)
    for job, reason in ((job_id, "case 7"), (job_id + 10_000, None)):
        await store_batch(connection, [old_part(job, 0, b"evidence", at=ago(5))])
        if reason:
            await holds.put_on(connection, job, reason)
        await store_batch(connection, [old_part(job, 0, b"b", at=ago(4), final=True, attempt="b")])
        await finish(connection, job)
    for days in (5, 4):
        name = await name_of(connection, ago(days))
        for log_id in await partitions.unfinished(connection, name):
            await partitions.rescue(connection, log_id)
        assert await drop(connection, name)
    log = await reading.find(connection, job_id)
    [first, *_] = await reading.attempts(connection, log.id)
    earlier = await reading.snapshot(connection, log, first.uuid)
    assert earlier.parts
    [text] = await reading.read_parts(connection, log.id, earlier.parts, [0])
    assert text.content == b"evidence"
    assert await connection.fetchval("SELECT count(DISTINCT log_id) FROM log_parts") == 1


async def test_a_log_reopened_while_the_drop_waits_keeps_its_parts(pool, job_id):
    async with pool.acquire() as connection, pool.acquire() as other:
        await make_past(connection)
        await store_batch(connection, [old_part(job_id, 0, b"text", at=ago(4), final=True)])
        await finish(connection, job_id)
        name = await name_of(connection, ago(4))
        async with other.transaction():
            # By the time it waits for this lock, it has checked the log.
            await other.execute("LOCK TABLE log_parts IN ACCESS SHARE MODE")
            dropping = asyncio.create_task(
                partitions.drop(connection, name, RETENTION, lock_timeout=30)
            )
            await blocked(pool, connection)
            await aggregation.aggregate(other, job_id, force=True, restore=True)
        assert await dropping is False
        assert await row_content(other, job_id) == b"text"


async def test_a_part_of_a_slow_clock_waits_for_the_drop_and_is_stored(pool, job_id):
    async with pool.acquire() as connection, pool.acquire() as drain:
        await make_past(connection)
        name = await name_of(connection, ago(4))
        async with drain.transaction():
            await store_batch(drain, [part(job_id, 0, b"in time")])
            dropping = asyncio.create_task(
                partitions.drop(connection, name, RETENTION, lock_timeout=0.8)
            )
            # It has read the partition and waits for the drain, which then waits for it.
            await blocked(pool, connection)
            await store_batch(drain, [old_part(job_id + 1000, 0, b"stored", at=ago(4))])
        with pytest.raises(asyncpg.LockNotAvailableError):
            await dropping
        assert not await drop(connection, name)
        assert await content(connection, job_id + 1000) == b"stored"


async def test_the_drop_gives_up_on_an_open_transaction_and_writers_continue(pool, job_id):
    async with pool.acquire() as connection, pool.acquire() as drain, pool.acquire() as other:
        await make_past(connection)
        name = await name_of(connection, ago(4))
        async with other.transaction():
            await other.fetch("SELECT FROM log_parts LIMIT 1")
            dropping = asyncio.create_task(
                partitions.drop(connection, name, RETENTION, lock_timeout=0.8)
            )
            await blocked(pool, connection)
            storing = asyncio.create_task(store_batch(drain, [part(job_id, 0, b"text")]))
            await blocked(pool, drain)
            with pytest.raises(asyncpg.LockNotAvailableError):
                await dropping
            await storing  # while the other transaction is still open
        assert await drop(connection, name)


async def test_creating_partitions_waits_for_open_readers_but_not_for_writers(pool, job_id):
    async with pool.acquire() as connection, pool.acquire() as other:
        async with other.transaction():
            await store_batch(other, [part(job_id, 0, b"text")])
            assert len((await make(connection, premake=8))[0]) == 1
        async with other.transaction():
            await other.fetch("SELECT FROM log_parts")
            with pytest.raises(asyncpg.LockNotAvailableError):
                await make(connection, premake=9)
        assert len((await make(connection, premake=9))[0]) == 1


async def blocked(pool, connection) -> None:
    async def waits() -> bool:
        pid = connection.get_server_pid()
        return bool(await pool.fetchval("SELECT cardinality(pg_blocking_pids($1)) > 0", pid))

    await until(waits)


class Writers:
    """Stores parts as drains do, as fast as possible, one log per connection."""

    def __init__(self, pool, job_ids) -> None:
        self.pool = pool
        self.stored = dict.fromkeys(job_ids, 0)
        self.stopping = False
        self.tasks = [asyncio.create_task(self.write(job_id)) for job_id in job_ids]

    async def write(self, job_id) -> None:
        async with self.pool.acquire() as connection:
            while not self.stopping:
                begin = self.stored[job_id]
                batch = [part(job_id, n, b"%d," % n) for n in range(begin, begin + 50)]
                await store_batch(connection, batch)
                self.stored[job_id] += 50

    async def go_on(self) -> None:
        """Wait until each connection has stored more parts."""
        before = dict(self.stored)

        async def more() -> bool:
            assert not any(task.done() for task in self.tasks)
            return all(self.stored[job_id] > count for job_id, count in before.items())

        await until(more)


async def maintain(connection) -> tuple[int, int]:
    """Maintain partitions once; returns the counts of rescued parts and dropped partitions."""
    rescued = dropped = 0
    await make(connection, premake=12)
    for name in await partitions.expired(connection, RETENTION):
        for log_id in await partitions.unfinished(connection, name):
            rescued += await partitions.rescue(connection, log_id)
        dropped += await drop_in_the_end(connection, name)
    await partitions.analyze(connection, LOCK_SECONDS)
    return rescued, dropped


async def drop_in_the_end(connection, name) -> bool:
    while True:
        try:
            return await drop(connection, name)
        except asyncpg.LockNotAvailableError:
            await asyncio.sleep(0.01)


async def test_maintenance_loses_no_parts_of_writers(settings, pool, connection, job_id):
    """Ten days pass while several drains store parts."""
    await make_past(connection)
    old = {day: job_id + day * 10_000 for day in range(3, 11)}
    for day, job in old.items():
        await store_batch(connection, [old_part(job, 0, b"old", at=ago(day), final=True)])
        if day % 2:
            await finish(connection, job)
    async with await open_pool(settings.database, 3) as writing:
        writers = Writers(writing, [job_id + place * 1000 for place in range(3)])
        await writers.go_on()
        assert await maintain(connection) == (4, 8)
        await writers.go_on()
        writers.stopping = True
        await asyncio.gather(*writers.tasks)
    for job, count in writers.stored.items():
        stored = await content(connection, job)
        assert stored == b"".join(b"%d," % n for n in range(count))
    for day in range(4, 11, 2):
        assert await content(connection, old[day]) == b"old"
    assert await connection.fetchval("SELECT count(*) FROM log_parts WHERE content = 'old'") == 4
