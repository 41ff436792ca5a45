"""`/stream` over a real socket: nothing twice, nothing left out, whatever happens meanwhile."""

import asyncio
from contextlib import AsyncExitStack, aclosing

import asyncpg
import httpx
import pytest

from db import aggregation
from db.notify import Announced, listen
from db.parts import store_batch
from db.tail import Since
from logflume.domain import LAST, StoredPart
from tests.support.parts import part, write_whole
from tests.support.services import serving
from tests.support.sse import reading
from web.streams import feed, follower, poller
from web.streams.cursor import Cursor
from web.streams.hub import Hub

MARKED = "SELECT count(*) FROM watched_logs WHERE job_id = ANY ($1)"


@pytest.fixture
async def web(settings, pool):
    async with serving(settings, pool) as client:
        yield client


@pytest.fixture
def store(pool, job_id):
    async def store(*parts) -> None:
        async with pool.acquire() as connection:
            await store_batch(
                connection, [part(job_id, number, content, **f) for number, content, f in parts]
            )

    return store


def p(number: int, content: bytes, **fields):
    return number, content, fields


def count_looks(monkeypatch) -> list[list[Since]]:
    looked, real = [], poller.look

    async def counted(connection, places):
        found = await real(connection, places)
        looked.append(places)
        return found

    monkeypatch.setattr(poller, "look", counted)
    return looked


async def aggregate(pool, job_id: int, *, force: bool = False) -> None:
    async with pool.acquire() as connection:
        await aggregation.aggregate(connection, job_id, force=force, restore=False)


async def test_history_then_live_then_final(web, store, job_id):
    await store(p(0, b"a\xc3"), p(1, b"\xa9\0"))
    async with reading(web, job_id) as reader:
        assert await reader.parts(2) == [(0, b"a\xc3"), (1, b"\xa9\0")]
        await store(p(2, b"c"))
        assert await reader.parts(1) == [(2, b"c")]
        await store(p(3, b"", final=True))
        last = await reader.next()
        assert last.data == {
            "number": 3, "content": "", "encoding": "base64", "final": True, "in_order": True,
        }  # fmt: skip
        assert (await reader.next()).name == "final"
        with pytest.raises(EOFError):
            await reader.next()
    async with reading(web, job_id, query="") as reader:
        texts = [(await reader.next()).data["content"] for _ in range(4)]
        assert texts == ["a\N{REPLACEMENT CHARACTER}", "\N{REPLACEMENT CHARACTER}\0", "c", ""]


async def test_headers_keep_proxies_and_caches_away(web, store, job_id):
    await store(p(0, b"a", final=True))
    answer = await web.get(f"/logs/{job_id}/stream")
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["x-accel-buffering"] == "no"
    assert answer.headers["cache-control"] == "no-store"


async def test_every_event_is_a_place_to_resume_from(web, store, job_id):
    await store(*(p(n, b"%d" % n) for n in range(5)), p(LAST, b"z"), p(5, b"", final=True))
    numbers = [0, 1, 2, 3, 4, 5, LAST]
    async with reading(web, job_id) as reader:
        ids = [(await reader.next()).id for _ in numbers]
    for seen, id_ in enumerate(ids, 1):
        async with reading(web, job_id, after=id_) as reader:
            assert [n for n, _ in await reader.parts(len(numbers) - seen)] == numbers[seen:]
            assert (await reader.next()).name == "final"


async def test_a_reader_resumes_across_aggregation_and_a_restart_of_web(
    settings, pool, store, job_id
):
    await store(p(0, b"a"), p(1, b"b"))
    async with serving(settings, pool) as web, reading(web, job_id) as reader:
        assert await reader.parts(2) == [(0, b"a"), (1, b"b")]
        place = reader.last_id
    await store(p(2, b"c", final=True))
    await aggregate(pool, job_id)
    async with serving(settings, pool) as web, reading(web, job_id, after=place) as reader:
        assert await reader.parts(1) == [(2, b"c")]
        assert (await reader.next()).name == "final"


async def test_a_stream_ends_when_a_log_without_a_final_part_is_aggregated(
    web, pool, store, job_id
):
    await store(p(0, b"a"))
    async with reading(web, job_id) as reader:
        await reader.parts(1)
        await aggregate(pool, job_id, force=True)
        assert (await reader.next()).name == "final"
    await store(p(1, b"late"))
    async with reading(web, job_id) as reader:  # it is open again
        assert await reader.parts(2) == [(0, b"a"), (1, b"late")]
        await store(p(2, b"", final=True))
        assert [(await reader.next()).name for _ in range(2)] == ["part", "final"]


async def test_parts_committed_out_of_order_are_told_in_order(web, store, job_id):
    await store(p(0, b"a"))
    async with reading(web, job_id) as reader:
        await reader.parts(1)
        await store(p(2, b"c"))
        await store(p(1, b"b"))
        assert await reader.parts(2) == [(1, b"b"), (2, b"c")]


async def test_a_straggler_is_told_late_and_once(web, store, job_id):
    await store(p(0, b"a"), p(3, b"d", final=True))
    async with reading(web, job_id) as reader:
        await reader.parts(2)  # history does not wait for what is missing
        place = reader.last_id
        await store(p(2, b"c"))
        late = await reader.next()
        assert (late.data["number"], late.data["in_order"]) == (2, False)
        await store(p(1, b"b"))
        assert (await reader.next()).data["number"] == 1
        assert (await reader.next()).name == "final"
    async with reading(web, job_id, after=place) as reader:
        assert sorted(await reader.parts(2)) == [(1, b"b"), (2, b"c")]
        assert (await reader.next()).name == "final"


async def test_a_gap_in_live_parts_is_waited_for_only_so_long(web, store, job_id):
    await store(p(0, b"a"))
    async with reading(web, job_id) as reader:
        await reader.parts(1)
        await store(p(2, b"c"))
        assert await reader.parts(1) == [(2, b"c")]


async def test_a_part_delivered_again_is_not_told_again_and_other_bytes_are(web, store, job_id):
    await store(p(0, b"a"), p(1, b"b"))
    async with reading(web, job_id) as reader:
        await reader.parts(2)
        place = reader.last_id
        await store(p(1, b"b"), p(0, b"A"))
        replaced = await reader.next()
        assert (replaced.data["number"], replaced.content) == (0, b"A")
        assert replaced.data["in_order"] is False
        await store(p(2, b"c", final=True))
        assert await reader.parts(1) == [(2, b"c")]
    async with reading(web, job_id, after=place) as reader:
        assert await reader.parts(2) == [(0, b"A"), (2, b"c")]


async def test_readers_begin_again_when_content_is_written_whole(web, pool, store, job_id):
    await store(p(0, b"secret"))
    async with reading(web, job_id) as reader:
        await reader.parts(1)
        place = reader.last_id
        async with pool.acquire() as connection:
            await write_whole(connection, job_id, b"removed")
        assert (await reader.next()).name == "reset"
        assert await reader.parts(1) == [(-1, b"removed")]
        assert (await reader.next()).name == "final"
    await store(p(1, b"late secret"))
    async with reading(web, job_id, after=place) as reader:
        assert (await reader.next()).name == "reset"
        assert await reader.parts(1) == [(-1, b"removed")]
        assert (await reader.next()).name == "final"


async def test_readers_begin_again_when_the_job_runs_again(web, store, job_id):
    await store(p(0, b"old"))
    async with reading(web, job_id) as reader:
        await reader.parts(1)
        await store(p(0, b"new", attempt="b"))
        assert (await reader.next()).name == "reset"
        assert await reader.parts(1) == [(0, b"new")]
        await store(p(1, b"older", attempt="a"), p(1, b"er", attempt="b", final=True))
        assert await reader.parts(1) == [(1, b"er")]
        assert (await reader.next()).name == "final"


async def test_a_cleared_log_is_followed_into_its_next_run(web, pool, store, job_id):
    await store(p(0, b"old"))
    async with reading(web, job_id) as reader:
        await reader.parts(1)
        async with pool.acquire() as connection:
            await write_whole(connection, job_id, b"")
        assert (await reader.next()).name == "reset"
        await store(p(0, b"new", attempt="b", final=True))
        assert await reader.parts(1) == [(0, b"new")]
        assert (await reader.next()).name == "final"


async def test_an_id_that_is_none_of_ours_begins_again(web, store, job_id):
    await store(p(0, b"a", final=True))
    forged = ("0.1.9999999999.0.0", "0.1.5.0.0_1-9999999999", "0" * 64 + ":" + "9" * 5000)
    for id_ in ("x", "1", "9" * 50, "0.0.0.0.0.9", "-1.-1.-1.-1.-1.0", *forged):
        async with reading(web, job_id, after=id_) as reader:
            assert (await reader.next()).name == "reset"
            assert await reader.parts(1) == [(0, b"a")]


async def test_a_log_whose_parts_went_is_told_from_its_content(web, pool, store, job_id):
    content = bytes(range(256)) * 10_000
    await store(p(0, content, final=True))
    await aggregate(pool, job_id)
    await pool.execute("DELETE FROM log_parts")
    async with reading(web, job_id) as reader:
        first = await reader.next()
        events = [first, await reader.next(), await reader.next()]
        assert b"".join(event.content for event in events) == content
        assert [event.data["final"] for event in events] == [False, False, True]
        assert (await reader.next()).name == "final"
    async with reading(web, job_id, after=first.id) as reader:
        assert (await reader.next()).id == events[1].id


async def test_a_large_history_comes_in_pages(web, store, job_id):
    count = 1700
    await store(*(p(n, b"%d," % n) for n in range(count)), p(LAST, b"end", final=True))
    async with reading(web, job_id) as reader:
        told = await reader.parts(count + 1)
    assert told == [*((n, b"%d," % n) for n in range(count)), (LAST, b"end")]


async def test_many_readers_cost_one_query(web, store, job_id, monkeypatch):
    await store(p(0, b"a"))
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
        looked = count_looks(monkeypatch)
        monkeypatch.setattr(feed, "POLL_SECONDS", 60)
        await ready.wait()
        await store(p(1, b"b"))
    assert len(looked) <= 3  # the wake-up, and a poll that may fall into it


async def test_logs_that_grow_together_cost_one_query(web, pool, job_id, monkeypatch):
    jobs = range(1000 * job_id, 1000 * job_id + 30)

    async def store(number: int) -> None:
        async with pool.acquire() as connection:
            await store_batch(connection, [part(job, number, b"%d" % job) for job in jobs])

    monkeypatch.setattr(feed, "FIRST_POLL_SECONDS", 60)
    await store(0)
    async with AsyncExitStack() as readers:
        opened = [await readers.enter_async_context(reading(web, job)) for job in jobs]
        assert [await reader.parts(1) for reader in opened] == [[(0, b"%d" % job)] for job in jobs]
        async with asyncio.timeout(20):
            while await pool.fetchval(MARKED, jobs) < len(jobs):
                await asyncio.sleep(0.01)
        looked = count_looks(monkeypatch)
        await store(1)
        assert [await reader.parts(1) for reader in opened] == [[(1, b"%d" % job)] for job in jobs]
    assert {since.job_id for places in looked for since in places} == {*jobs}
    assert len(looked) <= 5  # that of the last mark, and what was heard in two pieces


async def test_an_announcement_is_looked_for_only_if_it_was_not_seen(
    settings, pool, store, job_id, monkeypatch
):
    monkeypatch.setattr(feed, "FIRST_POLL_SECONDS", 60)
    told: asyncio.Queue[Announced] = asyncio.Queue()
    listener = await listen(settings.database, told.put_nowait, lambda: None)
    await store(p(0, b"a"))

    async def looks_are(count: int) -> None:
        async with asyncio.timeout(20):
            while len(looked) < count:
                await asyncio.sleep(0.01)

    hub = Hub(pool, settings.database)  # it hears what the test lets it hear
    async with aclosing(follower.Follower(hub, job_id, None).follow()) as following:
        assert (await anext(following)).part.content == b"a"
        looked = count_looks(monkeypatch)
        after = asyncio.create_task(anext(following))
        await looks_are(1)
        (followed,) = hub._feeds.values()

        await store(p(1, b"b"))
        await store(p(2, b"c"))
        first, second = await told.get(), await told.get()
        assert (first.lowest, second.lowest) == (1, 2) and first.transaction < second.transaction
        followed.wake(first)
        assert (await after).part.content == b"b"
        assert (await anext(following)).part.content == b"c"
        followed.wake(second)

        # Below where the next look begins, so that it sees the transaction but not its part.
        await store(p(0, b"A"))
        replaced = await told.get()
        after = asyncio.create_task(anext(following))
        followed.wake(Announced(job_id, 3, 2 * replaced.transaction))
        await looks_are(3)
        followed.wake(replaced)
        assert (await after).part.content == b"A"
    assert [since.number for places in looked for since in places] == [1, 1, 3, 3]
    listener.terminate()


async def test_a_reader_who_does_not_read_is_sent_away(web, store, job_id, monkeypatch):
    monkeypatch.setattr(feed, "BACKLOG_BYTES", 100_000)
    await store(p(0, b"a"))
    async with reading(web, job_id) as slow:
        await slow.parts(1)
        for n in range(1, 80):
            await store(p(n, b"x" * 200_000))
        numbers = []
        while (event := await slow.next()).name == "part":
            numbers.append(event.data["number"])
        assert event.name == "reconnect"
        assert numbers == [*range(1, len(numbers) + 1)] and len(numbers) < 79
    async with reading(web, job_id, after=slow.last_id) as reader:
        assert (await reader.next()).data["number"] == len(numbers) + 1


async def test_heartbeats_come_while_nothing_does(web, store, job_id, monkeypatch):
    monkeypatch.setattr(feed, "HEARTBEAT_SECONDS", 0.05)
    await store(p(0, b"a"))
    async with reading(web, job_id) as reader:
        await reader.parts(1)
        with pytest.raises(TimeoutError):
            await reader.next(1)
        assert reader.comments > 2


async def test_announcements_are_made_only_for_logs_that_somebody_reads(
    web, settings, store, pool, job_id
):
    heard: asyncio.Queue[str] = asyncio.Queue()
    listener = await asyncpg.connect(settings.database.url.get_secret_value())
    await listener.add_listener("log_parts", lambda *told: heard.put_nowait(told[3]))
    await store(p(0, b"a"))
    async with reading(web, job_id) as reader:
        await reader.parts(1)
        async with asyncio.timeout(20):
            while not await pool.fetchval(MARKED, [job_id]):
                await asyncio.sleep(0.01)
        await store(p(2, b"c"), p(1, b"b"))
        job, lowest, transaction = (await asyncio.wait_for(heard.get(), 20)).split()
        assert (int(job), int(lowest)) == (job_id, 1)
        assert await pool.fetchval("SELECT pg_xact_status($1)", int(transaction)) == "committed"
        await reader.parts(2)
    assert heard.empty()
    await listener.close()


async def test_a_listener_that_is_cut_off_comes_back(web, pool, store, job_id, monkeypatch):
    monkeypatch.setattr(feed, "POLL_SECONDS", 60)
    monkeypatch.setattr(feed, "FIRST_POLL_SECONDS", 60)
    await store(p(0, b"a"))
    async with reading(web, job_id) as reader:
        await reader.parts(1)
        cut = """
            SELECT pg_terminate_backend(pid) FROM pg_stat_activity
            WHERE application_name = 'logflume listener' AND datname = current_database()
        """
        assert await pool.fetch(cut)
        await store(p(1, b"b", final=True))
        assert await reader.parts(1) == [(1, b"b")]


async def test_a_forged_place_silences_nobody(web, store, job_id):
    await store(p(0, b"a"))
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
                await store(p(1, b"b"))
                assert await reader.parts(1) == [(1, b"b")]
            await store(p(1, b"b"))


async def test_a_whole_batch_that_is_committed_late_is_told(web, pool, store, job_id):
    await store(p(0, b"0"))
    async with reading(web, job_id) as reader, pool.acquire() as slow:
        await reader.parts(1)
        async with slow.transaction():
            await store_batch(slow, [part(job_id, n, b"%d" % n) for n in range(1, 300)])
            await store(*(p(n, b"%d" % n) for n in range(300, 400)))
            assert await reader.parts(100) == [(n, b"%d" % n) for n in range(300, 400)]
            place = reader.last_id
        expected = [(n, b"%d" % n) for n in range(1, 300)]
        assert sorted(await reader.parts(299)) == expected
    async with reading(web, job_id, after=place) as reader:
        assert sorted(await reader.parts(299)) == expected


async def test_last_parts_are_told_in_whatever_order_they_are_committed(web, pool, store, job_id):
    await store(p(0, b"x"))
    async with reading(web, job_id) as reader, pool.acquire() as slow:
        await reader.parts(1)
        async with slow.transaction():
            await store_batch(slow, [part(job_id, LAST, b"first", attempt="")])
            await store(p(LAST, b"second"))
            assert await reader.parts(1) == [(LAST, b"second")]
        assert await reader.parts(1) == [(LAST, b"first")]


async def test_the_end_does_not_come_before_what_is_behind_a_gap(web, pool, store, job_id):
    await store(p(0, b"a"))
    async with reading(web, job_id) as reader:
        await reader.parts(1)
        async with pool.acquire() as connection, connection.transaction():
            await store_batch(connection, [part(job_id, 2, b"c", final=True)])
            await aggregation.aggregate(connection, job_id, force=False, restore=False)
        assert await reader.parts(1) == [(2, b"c")]
        assert (await reader.next()).name == "final"


async def test_a_reader_who_lags_behind_the_others_looks_for_itself(pool, settings, store, job_id):
    """Its history ended before a part came that the feed, begun by another, never tells."""
    hub = Hub(pool, settings.database)
    hearing = asyncio.create_task(hub.run())
    await store(p(0, b"a"))

    async def number(reader) -> int:
        return (await asyncio.wait_for(anext(reader), 20)).part.number

    async with (
        aclosing(follower.Follower(hub, job_id, None).follow()) as slow,
        aclosing(follower.Follower(hub, job_id, None).follow()) as quick,
    ):
        assert await number(slow) == 0
        await store(p(1, b"b"))
        assert [await number(quick) for _ in range(2)] == [0, 1]
        following = asyncio.create_task(number(quick))
        await store(p(2, b"c"))
        assert await following == 2
        assert [await number(slow) for _ in range(2)] == [1, 2]
    hearing.cancel()


async def test_a_part_that_comes_while_a_reader_resumes_is_told(
    pool, settings, store, job_id, monkeypatch
):
    await store(p(0, b"a"))
    find = follower.reading.find

    async def late(*given):
        await store(p(1, b"b"))
        return await find(*given)

    monkeypatch.setattr(follower.reading, "find", late)
    hub = Hub(pool, settings.database)  # it hears nothing: no announcement mends it
    at = await pool.fetchrow(
        "SELECT generation, log_attempt(id) FROM logs WHERE job_id = $1", job_id
    )
    cursor = Cursor(*at)
    cursor.take(StoredPart(1, 0, final=False, content=b"a"))
    async with aclosing(follower.Follower(hub, job_id, cursor).follow()) as following:
        assert (await anext(following)).part.content == b"b"


async def test_a_large_part_of_a_log_replaced_comes_in_pages(web, store, job_id):
    await store(*(p(n, b"old") for n in range(1200)))
    async with reading(web, job_id) as reader:
        await reader.parts(1200)
        place = reader.last_id
        await store(*(p(n, b"new%d" % n) for n in range(1200)))
        assert sorted(await reader.parts(1200)) == [(n, b"new%d" % n) for n in range(1200)]
    async with reading(web, job_id, after=place) as reader:
        assert len(await reader.parts(1200)) == 1200


async def test_readers_are_sent_away_when_web_stops(settings, pool, store, job_id):
    await store(p(0, b"a"))
    stopping = AsyncExitStack()
    web = await stopping.enter_async_context(serving(settings, pool))
    async with (
        httpx.AsyncClient(base_url=web.base_url, headers=web.headers) as client,
        reading(client, job_id) as reader,
    ):
        await reader.parts(1)
        told = asyncio.create_task(reader.next())
        await stopping.aclose()
        assert (await told).name == "reconnect"
