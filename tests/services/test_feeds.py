"""What live streams cost, and how their feeds learn of new parts."""

import asyncio
from contextlib import AsyncExitStack, aclosing

import asyncpg
import pytest

import db.reading
from db import tail
from db.notify import Announced, listen
from logflume.domain import StoredPart
from tests.support.parts import part, store_parts
from tests.support.sse import reading
from tests.support.waiting import until
from web.streams import feed, follower, poller
from web.streams.cursor import Cursor
from web.streams.hub import Hub

WATCHED = "SELECT count(*) = cardinality($1::bigint[]) FROM watched_logs WHERE job_id = ANY ($1)"


@pytest.fixture
def count_polls(monkeypatch):
    """Call it to start recording the queries of the poller."""

    def count_polls():
        queries, real = [], tail.read_tails

        async def recorded(connection, polls):
            pages = await real(connection, polls)
            queries.append(polls)
            return pages

        monkeypatch.setattr(poller, "read_tails", recorded)
        return queries

    return count_polls


async def test_many_subscribers_cost_one_query(web, store, job_id, monkeypatch, count_polls):
    await store((0, b"a"))
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        ready = asyncio.Barrier(51)

        async def read() -> None:
            async with reading(web, job_id) as reader:
                await reader.parts(1)
                await ready.wait()
                await ready.wait()
                assert await reader.parts(1) == [(1, b"b")]

        for _ in range(50):
            group.create_task(read())
        await ready.wait()
        queries = count_polls()
        monkeypatch.setattr(feed, "POLL_SECONDS", 60)
        await ready.wait()
        await store((1, b"b"))
    assert len(queries) <= 3  # for the announcement, and maybe a timed poll


async def test_logs_that_grow_together_cost_one_query(web, pool, job_id, monkeypatch, count_polls):
    jobs = range(1000 * job_id, 1000 * job_id + 30)

    async def store(number: int) -> None:
        await store_parts(pool, [part(job, number, b"%d" % job) for job in jobs])

    monkeypatch.setattr(feed, "FIRST_POLL_SECONDS", 60)
    await store(0)
    async with AsyncExitStack() as stack:
        readers = [await stack.enter_async_context(reading(web, job)) for job in jobs]
        assert [await reader.parts(1) for reader in readers] == [[(0, b"%d" % job)] for job in jobs]
        await until(lambda: pool.fetchval(WATCHED, jobs))
        queries = count_polls()
        await store(1)
        assert [await reader.parts(1) for reader in readers] == [[(1, b"%d" % job)] for job in jobs]
    assert {since.job_id for polls in queries for since in polls} == {*jobs}
    assert len(queries) <= 5  # the poll of the last mark, and announcements that arrived apart


async def test_an_announcement_of_visible_parts_causes_no_poll(
    settings, pool, store, job_id, monkeypatch, count_polls
):
    monkeypatch.setattr(feed, "FIRST_POLL_SECONDS", 60)
    announced: asyncio.Queue[Announced] = asyncio.Queue()
    listener = await listen(settings.database, announced.put_nowait, lambda: None)
    await store((0, b"a"))
    hub = Hub(pool, settings.database)  # it does not run: the test delivers the announcements
    async with aclosing(follower.Follower(hub, job_id, None).follow()) as events:
        assert (await anext(events)).part.content == b"a"
        queries = count_polls()
        following = asyncio.create_task(anext(events))

        async def polled(count: int) -> bool:
            return len(queries) >= count

        await until(lambda: polled(1))
        (log_feed,) = hub._feeds.values()

        await store((1, b"b"))
        await store((2, b"c"))
        first, second = await announced.get(), await announced.get()
        assert (first.lowest, second.lowest) == (1, 2) and first.transaction < second.transaction
        log_feed.wake(first)
        assert (await following).part.content == b"b"
        assert (await anext(events)).part.content == b"c"
        log_feed.wake(second)

        # Number 0 is below the next poll, which sees this transaction but does not return its part.
        await store((0, b"A"))
        replaced = await announced.get()
        following = asyncio.create_task(anext(events))
        log_feed.wake(Announced(job_id, 3, 2 * replaced.transaction))
        await until(lambda: polled(3))
        log_feed.wake(replaced)
        assert (await following).part.content == b"A"
    assert [since.number for polls in queries for since in polls] == [1, 1, 3, 3]
    listener.terminate()


async def test_parts_are_announced_only_for_watched_logs(web, settings, store, pool, job_id):
    payloads: asyncio.Queue[str] = asyncio.Queue()
    listener = await asyncpg.connect(settings.database.url.get_secret_value())
    await listener.add_listener("log_parts", lambda *received: payloads.put_nowait(received[3]))
    await store((0, b"a"))
    async with reading(web, job_id) as reader:
        await reader.parts(1)
        await until(lambda: pool.fetchval(WATCHED, [job_id]))
        await store((2, b"c"), (1, b"b"))
        job, lowest, transaction = (await asyncio.wait_for(payloads.get(), 20)).split()
        assert (int(job), int(lowest)) == (job_id, 1)
        assert await pool.fetchval("SELECT pg_xact_status($1)", int(transaction)) == "committed"
        await reader.parts(2)
    assert payloads.empty()
    await listener.close()


async def test_the_listener_reconnects(web, pool, store, job_id, monkeypatch):
    monkeypatch.setattr(feed, "POLL_SECONDS", 60)
    monkeypatch.setattr(feed, "FIRST_POLL_SECONDS", 60)
    await store((0, b"a"))
    async with reading(web, job_id) as reader:
        await reader.parts(1)
        cut = """
            SELECT pg_terminate_backend(pid) FROM pg_stat_activity
            WHERE application_name = 'logflume listener' AND datname = current_database()
        """
        assert await pool.fetch(cut)
        await store((1, b"b", {"final": True}))
        assert await reader.parts(1) == [(1, b"b")]


async def test_a_forged_cursor_does_not_affect_other_readers(web, store, job_id):
    await store((0, b"a"))
    huge = 999_999_999_999_999_999
    for forged in (
        f"0.1.2000000000.{huge}.0",
        f"0.1.1.{huge}.0",
        "0.1.2147483647.0.0",
        "0.1.1.0.0",
    ):
        async with reading(web, job_id, after=forged):
            async with reading(web, job_id) as reader:
                await reader.parts(1)
                await store((1, b"b"))
                assert await reader.parts(1) == [(1, b"b")]
            await store((1, b"b"))


async def test_a_lagging_subscriber_reads_the_history_itself(pool, settings, store, job_id):
    """The feed was started further on, by another subscriber, and never returns its next part."""
    hub = Hub(pool, settings.database)
    running = asyncio.create_task(hub.run())
    await store((0, b"a"))

    async def number(events) -> int:
        return (await asyncio.wait_for(anext(events), 20)).part.number

    async with (
        aclosing(follower.Follower(hub, job_id, None).follow()) as slow,
        aclosing(follower.Follower(hub, job_id, None).follow()) as quick,
    ):
        assert await number(slow) == 0
        await store((1, b"b"))
        assert [await number(quick) for _ in range(2)] == [0, 1]
        following = asyncio.create_task(number(quick))
        await store((2, b"c"))
        assert await following == 2
        assert [await number(slow) for _ in range(2)] == [1, 2]
    running.cancel()


async def test_a_part_stored_while_resuming_is_sent(pool, settings, store, job_id, monkeypatch):
    await store((0, b"a"))
    find = db.reading.find

    async def store_and_find(*arguments):
        await store((1, b"b"))
        return await find(*arguments)

    monkeypatch.setattr(db.reading, "find", store_and_find)
    hub = Hub(pool, settings.database)  # it does not run: no announcement arrives
    query = "SELECT generation, log_attempt(id) FROM logs WHERE job_id = $1"
    cursor = Cursor(*await pool.fetchrow(query, job_id))
    part_id = await pool.fetchval("SELECT id FROM log_parts")
    cursor.take(StoredPart(part_id, 0, final=False, content=b"a"))
    async with aclosing(follower.Follower(hub, job_id, cursor).follow()) as events:
        assert (await anext(events)).part.content == b"b"
