"""Storing batches, aggregating and purging, concurrently, in real Postgres."""

import asyncio
import hashlib
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest
from msgspec.structs import replace

from db import aggregation, logs, reading
from db.parts import store_batch
from db.stats import read_stats
from logflume.domain import LAST
from tests.support.parts import BEGIN, content, part, store_parts, write_whole
from tests.support.waiting import until_blocked


async def test_a_batch_is_stored_and_read_in_number_order(pool, job_id):
    async with pool.acquire() as connection:
        parts = [part(job_id, 1, b"b"), part(job_id, LAST, b"z"), part(job_id, 0, b"a")]
        [(_, attempt)] = await store_batch(connection, parts)
        assert attempt.is_open and attempt.is_log and attempt.begun
        assert await content(connection, job_id) == b"abz"


async def test_concurrent_batches_create_one_row_per_job(pool, job_id):
    jobs = range(job_id * 1000, job_id * 1000 + 100)

    async def flush(number: int) -> None:
        await store_parts(pool, [part(job, number, b"%d," % number) for job in jobs])

    await asyncio.gather(*(flush(number) for number in range(8)))
    assert await pool.fetchval("SELECT count(*) FROM logs") == 100
    assert await pool.fetchval("SELECT count(*) FROM log_attempts") == 100
    async with pool.acquire() as connection:
        for job in jobs:
            assert await content(connection, job) == b"0,1,2,3,4,5,6,7,"


async def test_parts_of_a_closed_attempt_are_only_counted(pool, job_id):
    async with pool.acquire() as connection:
        await store_batch(connection, [part(job_id, 0, b"old")])
        await write_whole(connection, job_id, b"removed")
        [(_, attempt)] = await store_batch(connection, [part(job_id, 1, b"late", final=True)])
        assert not attempt.is_open
        assert await content(connection, job_id) == b"removed"
        assert await pool.fetchval("SELECT count(*) FROM log_parts WHERE number >= 0") == 0
        assert await pool.fetchval("SELECT sum(stale_parts) FROM log_attempts") == 1


async def test_clearing_waits_for_an_uncommitted_batch_and_deletes_its_parts(pool, job_id):
    """A part is either deleted by the clear or stale; it never stays."""
    async with pool.acquire() as drain, pool.acquire() as web:
        await store_batch(drain, [part(job_id, 0, b"x")])
        async with drain.transaction():
            await store_batch(drain, [part(job_id, 1, b"y")])  # not committed yet
            clear = asyncio.create_task(write_whole(web, job_id, b""))
            await until_blocked(pool, web.get_server_pid())
        await clear
        assert await pool.fetchval("SELECT count(*) FROM log_parts") == 0


async def test_aggregation_uses_content_written_whole_while_it_waited(pool, job_id):
    async with pool.acquire() as web, pool.acquire() as worker:
        await store_batch(web, [part(job_id, 0, b"old", final=True)])
        async with web.transaction():
            await write_whole(web, job_id, b"new")
            result = asyncio.create_task(
                aggregation.aggregate(worker, job_id, force=False, restore=False)
            )
            await until_blocked(pool, worker.get_server_pid())
        assert (await result).sha256 == hashlib.sha256(b"new").hexdigest()


async def test_a_new_attempt_resets_aggregation_and_archive(pool, job_id):
    async with pool.acquire() as connection:
        await store_batch(connection, [part(job_id, 0, b"first", final=True)])
        result = await aggregation.aggregate(connection, job_id, force=False, restore=False)
        assert await logs.mark_verified(connection, job_id, result.sha256)
        later = part(job_id, 0, b"second", attempt="b")
        await store_batch(connection, [later])
        log = await reading.find(connection, job_id)
        assert (log.aggregated_at, log.archived_at, log.archive_verified) == (None, None, False)
        assert await content(connection, job_id) == b"second"


async def test_purge_clears_only_verified_content(pool, job_id):
    async with pool.acquire() as connection:
        await store_batch(connection, [part(job_id, 0, b"text", final=True)])
        result = await aggregation.aggregate(connection, job_id, force=False, restore=False)
        assert not await logs.purge(connection, job_id, result.sha256)
        assert await logs.mark_verified(connection, job_id, result.sha256)
        assert not await logs.purge(connection, job_id, "00" * 32)
        assert await logs.purge(connection, job_id, result.sha256)
        assert (await reading.find(connection, job_id)).purged_at


async def test_a_log_is_not_purged_if_parts_were_committed_during_its_aggregation(pool, job_id):
    """Neither sees the other, and the drain may crash before its signal."""
    async with pool.acquire() as drain, pool.acquire() as worker:
        await store_batch(worker, [part(job_id, 0, b"a"), part(job_id, 2, final=True)])
        async with drain.transaction():
            await store_batch(drain, [part(job_id, 1, b"b")])
            result = await aggregation.aggregate(worker, job_id, force=False, restore=False)
        await logs.mark_verified(worker, job_id, result.sha256)
        assert not (await reading.find(worker, job_id)).late_parts
        assert not await logs.purge(worker, job_id, result.sha256)
        whole = await aggregation.aggregate(worker, job_id, force=True, restore=False)
        assert whole.parts == 3
        await logs.mark_verified(worker, job_id, whole.sha256)
        assert await logs.purge(worker, job_id, whole.sha256)


async def test_a_log_is_not_purged_during_an_uncommitted_flush(pool, job_id):
    """The flush began before the aggregation: it sets no mark, and the purge cannot see it."""
    async with pool.acquire() as drain, pool.acquire() as worker:
        await store_batch(worker, [part(job_id, 0, b"a"), part(job_id, 2, final=True)])
        async with drain.transaction():
            await store_batch(drain, [part(job_id, 1, b"b")])
            result = await aggregation.aggregate(worker, job_id, force=False, restore=False)
            await logs.mark_verified(worker, job_id, result.sha256)
            with pytest.raises(asyncpg.LockNotAvailableError):
                await logs.purge(worker, job_id, result.sha256)
        assert not await logs.purge(worker, job_id, result.sha256)
        assert not (await reading.find(worker, job_id)).purged_at


async def test_a_batch_that_waited_while_its_log_was_purged_marks_late_parts(pool, numbers):
    """The batch read the log before its aggregation, and locks the attempt after it."""
    waited_for, job_id = next(numbers), next(numbers)
    async with pool.acquire() as drain, pool.acquire() as worker, pool.acquire() as holder:
        await store_batch(worker, [part(waited_for, 0, b"x")])
        await store_batch(worker, [part(job_id, 0, b"a"), part(job_id, 2, final=True)])
        more = [part(waited_for, 1, b"x"), part(job_id, 1, b"b")]
        async with holder.transaction():
            await holder.execute("SELECT FROM log_attempts ORDER BY id LIMIT 1 FOR UPDATE")
            batch = asyncio.create_task(store_batch(drain, more))
            await until_blocked(pool, drain.get_server_pid())
            result = await aggregation.aggregate(worker, job_id, force=False, restore=False)
            await logs.mark_verified(worker, job_id, result.sha256)
            assert await logs.purge(worker, job_id, result.sha256)
        with pytest.raises(asyncpg.SerializationError):
            await batch
        await store_batch(drain, more)
        assert (await reading.find(worker, job_id)).late_parts


async def test_a_log_whose_parts_were_dropped_is_not_aggregated_from_the_rest(pool, job_id):
    async with pool.acquire() as connection:
        await store_batch(connection, [part(job_id, 0, b"a"), part(job_id, 1, b"b", final=True)])
        result = await aggregation.aggregate(connection, job_id, force=False, restore=False)
        await logs.mark_verified(connection, job_id, result.sha256)
        await connection.execute("DELETE FROM log_parts")  # like a dropped partition
        await store_batch(connection, [part(job_id, 2 + n, b"late") for n in range(5)])
        await connection.execute("UPDATE logs SET content = NULL")
        again = await aggregation.aggregate(connection, job_id, force=True, restore=False)
        assert (again.sha256, again.needs_archived) == ("", True)
        log = await reading.find(connection, job_id)
        assert (log.content_sha256, log.archive_verified) == (result.sha256, True)


async def test_writing_whole_waits_for_a_starting_attempt(pool, job_id):
    """An attempt whose first batch is uncommitted is closed with all its parts, or not at all."""
    async with pool.acquire() as drain, pool.acquire() as web:
        await store_batch(drain, [part(job_id, 0, b"old")])
        async with drain.transaction():
            await store_batch(drain, [part(job_id, 0, b"new", attempt="b")])
            clear = asyncio.create_task(write_whole(web, job_id, b""))
            await until_blocked(pool, web.get_server_pid())
        await clear
        assert await pool.fetchval("SELECT count(*) FROM log_parts") == 0
        assert await pool.fetchval("SELECT count(*) FROM log_attempts WHERE closed_at IS NULL") == 1


async def test_aggregation_waits_for_a_starting_attempt_and_uses_it(pool, job_id):
    async with pool.acquire() as drain, pool.acquire() as worker:
        await store_batch(drain, [part(job_id, 0, b"old", final=True)])
        async with drain.transaction():
            await store_batch(drain, [part(job_id, 0, b"new", attempt="b")])
            result = asyncio.create_task(
                aggregation.aggregate(worker, job_id, force=False, restore=False)
            )
            await until_blocked(pool, worker.get_server_pid())
        aggregated = await result
        assert (aggregated.attempt, aggregated.ended, aggregated.sha256) == ("b", False, "")
        assert (await reading.find(worker, job_id)).aggregated_at is None


async def test_an_attempt_whose_start_moves_back_stops_being_the_log(pool, job_id):
    async with pool.acquire() as connection:
        at = [BEGIN + timedelta(seconds=second) for second in range(3)]
        await store_batch(connection, [part(job_id, 0, b"a", attempt="a", published_at=at[1])])
        final = part(job_id, 0, b"b", attempt="b", published_at=at[2], final=True)
        await store_batch(connection, [final])
        await aggregation.aggregate(connection, job_id, force=False, restore=False)
        # The earliest part of b arrives last: b began before a, so a is the log.
        early = part(job_id, 1, b"?", attempt="b", published_at=at[0])
        [(_, attempt)] = await store_batch(connection, [early])
        assert attempt.moved and not attempt.is_log
        assert (await reading.find(connection, job_id)).aggregated_at is None
        assert await content(connection, job_id) == b"a"


async def test_replacing_many_contents_is_atomic(pool, job_id):
    async with pool.acquire() as connection:
        await store_batch(connection, [part(job_id, 0, b"before")])
        fails = logs.WholeContent(job_id + 1, b"x", removed_by=2**70)
        with pytest.raises(asyncpg.DataError):
            await logs.replace_contents(connection, [logs.WholeContent(job_id, b"x"), fails])
        assert await content(connection, job_id) == b"before"
        assert await pool.fetchval("SELECT count(*) FROM logs") == 1


async def test_writers_of_the_same_logs_never_deadlock(pool, job_id):  # noqa: C901
    """Flushes, complete rewrites and aggregations, each with the logs in a different order."""
    # Row ids are in a different order than job ids.
    jobs = [job_id * 1000 + n for n in (5, 3, 4, 1, 2, 0)]
    for job in jobs:
        await store_parts(pool, [part(job, 0, b"x")])
    numbers = iter(range(1, 10_000))

    async def flush() -> None:
        async with pool.acquire() as connection:
            for _ in range(15):
                attempt = f"a{next(numbers)}"
                await store_batch(connection, [part(j, 0, b"y", attempt=attempt) for j in jobs])

    async def write() -> None:
        async with pool.acquire() as connection:
            for _ in range(15):
                wholes = [logs.WholeContent(job, b"w") for job in sorted(jobs)]
                await logs.replace_contents(connection, wholes)

    async def aggregate() -> None:
        async with pool.acquire() as connection:
            for _ in range(15):
                for job in reversed(jobs):
                    await aggregation.aggregate(connection, job, force=True, restore=False)

    await asyncio.gather(flush(), flush(), write(), write(), aggregate(), aggregate())


async def test_stale_parts_do_not_reopen_an_aggregated_log(pool, job_id):
    async with pool.acquire() as connection:
        await store_batch(connection, [part(job_id, 0, b"old", attempt="dying")])
        await write_whole(connection, job_id, b"")
        await store_batch(connection, [part(job_id, 0, b"new", attempt="next", final=True)])
        await aggregation.aggregate(connection, job_id, force=False, restore=False)
        await store_batch(connection, [part(job_id, 1, b"stale", attempt="dying", final=True)])
        assert not (await reading.find(connection, job_id)).late_parts
        await store_batch(connection, [part(job_id, 1, b"late", attempt="next")])
        assert (await reading.find(connection, job_id)).late_parts


@pytest.mark.parametrize("clock", [timedelta(hours=1), datetime(9999, 12, 31, tzinfo=UTC) - BEGIN])
async def test_a_clock_that_is_ahead_does_not_decide_which_run_is_the_log(pool, job_id, clock):
    """The first run's is, or its and the drain's."""
    async with pool.acquire() as connection:
        for job, drains_clock in ((job_id, timedelta()), (job_id + 1, clock)):
            for attempt, ahead in (("b", clock), ("a", timedelta())):
                now = datetime.now(UTC)
                one = part(job, 0, attempt.encode(), attempt=attempt, published_at=now + ahead)
                await store_batch(connection, [replace(one, received_at=now + drains_clock)])
            assert await content(connection, job) == b"a"


async def test_the_order_of_receipt_is_that_of_postgres(pool, job_id):
    """Of two drains, the clock of one is an hour ahead."""
    hour = timedelta(hours=1)
    async with pool.acquire() as connection:
        for number, text in [(0, b"old"), (LAST, b" 1"), (0, b"new"), (LAST, b" 2"), (LAST, b" 1")]:
            one = part(job_id, number, text, attempt="b" if number else "a")
            at = one.received_at + (hour if text in (b"old", b" 1") else -hour)
            await store_batch(connection, [replace(one, received_at=at)])
        # In one batch, parts of several attempts keep their order.
        lasts = [part(job_id, LAST, text, attempt=text.decode()) for text in (b"d", b"a", b"d")]
        await store_batch(connection, [*lasts, part(job_id, LAST, b"c", attempt="a")])
        assert await content(connection, job_id) == b"new 1 2dac"
        log = await reading.find(connection, job_id)
        made = await aggregation.aggregate(connection, job_id, force=True, restore=False)
        stored = await reading.content_slice(connection, log.id, made.sha256, 0, 100)
        assert stored == b"new 1 2dac"


def sent_now(job_id: int, number: int, content: bytes):
    """A part that is published now; all of them have one uuid."""
    now = datetime.now(UTC)
    return replace(part(job_id, number, content, published_at=now), received_at=now)


async def test_a_requeued_run_may_reuse_its_uuid_after_a_clear(pool, job_id):
    async with pool.acquire() as connection:
        first = [sent_now(job_id, number, b"first") for number in range(4)]
        await store_batch(connection, first[:2])
        await write_whole(connection, job_id, b"")
        # The dying run's text, published after the clear.
        await store_batch(connection, [sent_now(job_id, 2, b"dying")])
        log = await reading.find(connection, job_id)
        assert await content(connection, job_id) == b""
        assert (await read_stats(connection)).stale_only_logs == 1
        # Its first parts are delivered again, in one batch with the next run's.
        second = [sent_now(job_id, number, b"%d," % number) for number in range(2)]
        placed = await store_batch(connection, [first[0], second[0], first[3], second[1], first[1]])
        assert [(len(g.parts), s.is_open, s.is_log, s.begun) for g, s in placed] == [
            (2, True, True, True),
            (3, False, True, True),
        ]
        await store_batch(connection, [first[2], sent_now(job_id, 2, b"2")])
        assert await content(connection, job_id) == b"0,1,2"
        assert (await read_stats(connection)).stale_only_logs == 0
        [attempt] = [one for one in await reading.attempts(connection, log.id) if one.uuid]
        assert (attempt.stale_parts, attempt.closed_at) == (5, None)
        assert attempt.began_at == second[0].published_at
        # The next clear closes it again.
        between = sent_now(job_id, 0, b"between")
        await write_whole(connection, job_id, b"")
        await store_batch(connection, [between])
        assert await content(connection, job_id) == b""
        await store_batch(connection, [sent_now(job_id, 0, b"third")])
        assert await content(connection, job_id) == b"third"


async def test_removed_text_is_not_begun_again(pool, job_id):
    async with pool.acquire() as connection:
        await store_batch(connection, [sent_now(job_id, 0, b"secret")])
        for notice in (b"removed", b""):
            removal = logs.WholeContent(job_id, notice, removed_by=7)
            await logs.replace_contents(connection, [removal])
            await store_batch(connection, [sent_now(job_id, 0, b"secret")])
            assert await content(connection, job_id) == notice
        assert (await read_stats(connection)).stale_only_logs == 0
        await write_whole(connection, job_id, b"")  # the job is restarted
        await store_batch(connection, [sent_now(job_id, 0, b"next run")])
        assert await content(connection, job_id) == b"next run"
