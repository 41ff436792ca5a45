"""What `/stream` sends: every part once, in order, across resumes, restarts and replacements."""

import asyncio
from contextlib import AsyncExitStack

import httpx
import pytest

from db import aggregation
from db.parts import store_batch
from logflume.domain import LAST
from tests.support.parts import part, replace_whole
from tests.support.services import serving
from tests.support.sse import reading
from web.streams import feed

END = {"final": True}


async def test_sends_history_then_live_parts_then_final(web, store, job_id):
    await store((0, b"a\xc3"), (1, b"\xa9\0"))
    async with reading(web, job_id) as reader:
        assert await reader.parts(2) == [(0, b"a\xc3"), (1, b"\xa9\0")]
        await store((2, b"c"))
        assert await reader.parts(1) == [(2, b"c")]
        await store((3, b"", END))
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


async def test_headers_disable_buffering_and_caching(web, store, job_id):
    await store((0, b"a", END))
    response = await web.get(f"/logs/{job_id}/stream")
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["x-accel-buffering"] == "no"
    assert response.headers["cache-control"] == "no-store"


async def test_resumes_after_any_event(web, store, job_id):
    await store(*((n, b"%d" % n) for n in range(5)), (LAST, b"z"), (5, b"", END))
    numbers = [0, 1, 2, 3, 4, 5, LAST]
    async with reading(web, job_id) as reader:
        ids = [(await reader.next()).id for _ in numbers]
    for seen, id_ in enumerate(ids, 1):
        async with reading(web, job_id, after=id_) as reader:
            assert [n for n, _ in await reader.parts(len(numbers) - seen)] == numbers[seen:]
            assert (await reader.next()).name == "final"


async def test_resumes_after_aggregation_and_a_restart_of_web(
    settings, pool, store, aggregate, job_id
):
    await store((0, b"a"), (1, b"b"))
    async with serving(settings, pool) as web, reading(web, job_id) as reader:
        assert await reader.parts(2) == [(0, b"a"), (1, b"b")]
        last_id = reader.last_id
    await store((2, b"c", END))
    await aggregate()
    async with serving(settings, pool) as web, reading(web, job_id, after=last_id) as reader:
        assert await reader.parts(1) == [(2, b"c")]
        assert (await reader.next()).name == "final"


async def test_ends_when_a_log_without_a_final_part_is_aggregated(web, store, aggregate, job_id):
    await store((0, b"a"))
    async with reading(web, job_id) as reader:
        await reader.parts(1)
        await aggregate(force=True)
        assert (await reader.next()).name == "final"
    await store((1, b"late"))
    async with reading(web, job_id) as reader:  # it is open again
        assert await reader.parts(2) == [(0, b"a"), (1, b"late")]
        await store((2, b"", END))
        assert [(await reader.next()).name for _ in range(2)] == ["part", "final"]


async def test_parts_committed_out_of_order_are_sent_in_order(web, store, job_id):
    await store((0, b"a"))
    async with reading(web, job_id) as reader:
        await reader.parts(1)
        await store((2, b"c"))
        await store((1, b"b"))
        assert await reader.parts(2) == [(1, b"b"), (2, b"c")]


async def test_a_late_part_is_sent_once_and_marked(web, store, job_id):
    await store((0, b"a"), (3, b"d", END))
    async with reading(web, job_id) as reader:
        await reader.parts(2)  # the history does not wait for missing parts
        last_id = reader.last_id
        await store((2, b"c"))
        late = await reader.next()
        assert (late.data["number"], late.data["in_order"]) == (2, False)
        await store((1, b"b"))
        assert (await reader.next()).data["number"] == 1
        assert (await reader.next()).name == "final"
    async with reading(web, job_id, after=last_id) as reader:
        assert sorted(await reader.parts(2)) == [(1, b"b"), (2, b"c")]
        assert (await reader.next()).name == "final"


async def test_the_wait_for_a_missing_part_is_bounded(web, store, job_id):
    await store((0, b"a"))
    async with reading(web, job_id) as reader:
        await reader.parts(1)
        await store((2, b"c"))
        assert await reader.parts(1) == [(2, b"c")]


async def test_a_redelivered_part_is_sent_again_only_with_new_bytes(web, store, job_id):
    await store((0, b"a"), (1, b"b"))
    async with reading(web, job_id) as reader:
        await reader.parts(2)
        last_id = reader.last_id
        await store((1, b"b"), (0, b"A"))
        replaced = await reader.next()
        assert (replaced.data["number"], replaced.content) == (0, b"A")
        assert replaced.data["in_order"] is False
        await store((2, b"c", END))
        assert await reader.parts(1) == [(2, b"c")]
    async with reading(web, job_id, after=last_id) as reader:
        assert await reader.parts(2) == [(0, b"A"), (2, b"c")]


async def test_resets_when_content_is_written_whole(web, pool, store, job_id):
    await store((0, b"secret"))
    async with reading(web, job_id) as reader:
        await reader.parts(1)
        last_id = reader.last_id
        await replace_whole(pool, job_id, b"removed")
        assert (await reader.next()).name == "reset"
        assert await reader.parts(1) == [(-1, b"removed")]
        assert (await reader.next()).name == "final"
    await store((1, b"late secret"))
    async with reading(web, job_id, after=last_id) as reader:
        assert (await reader.next()).name == "reset"
        assert await reader.parts(1) == [(-1, b"removed")]
        assert (await reader.next()).name == "final"


async def test_resets_when_the_job_runs_again(web, store, job_id):
    await store((0, b"old"))
    async with reading(web, job_id) as reader:
        await reader.parts(1)
        await store((0, b"new", {"attempt": "b"}))
        assert (await reader.next()).name == "reset"
        assert await reader.parts(1) == [(0, b"new")]
        await store((1, b"older", {"attempt": "a"}), (1, b"er", {"attempt": "b", **END}))
        assert await reader.parts(1) == [(1, b"er")]
        assert (await reader.next()).name == "final"


async def test_follows_a_cleared_log_into_the_next_run(web, pool, store, job_id):
    await store((0, b"old"))
    async with reading(web, job_id) as reader:
        await reader.parts(1)
        await replace_whole(pool, job_id, b"")
        assert (await reader.next()).name == "reset"
        await store((0, b"new", {"attempt": "b", **END}))
        assert await reader.parts(1) == [(0, b"new")]
        assert (await reader.next()).name == "final"


async def test_an_unknown_event_id_resets(web, store, job_id):
    await store((0, b"a", END))
    forged = ("0.1.9999999999.0.0", "0.1.5.0.0_1-9999999999", "0" * 64 + ":" + "9" * 5000)
    for id_ in ("x", "1", "9" * 50, "0.0.0.0.0.9", "-1.-1.-1.-1.-1.0", *forged):
        async with reading(web, job_id, after=id_) as reader:
            assert (await reader.next()).name == "reset"
            assert await reader.parts(1) == [(0, b"a")]


async def test_a_log_without_parts_is_sent_from_its_content(web, pool, store, aggregate, job_id):
    content = bytes(range(256)) * 10_000
    await store((0, content, END))
    await aggregate()
    await pool.execute("DELETE FROM log_parts")
    async with reading(web, job_id) as reader:
        first = await reader.next()
        events = [first, await reader.next(), await reader.next()]
        assert b"".join(event.content for event in events) == content
        assert [event.data["final"] for event in events] == [False, False, True]
        assert (await reader.next()).name == "final"
    async with reading(web, job_id, after=first.id) as reader:
        assert (await reader.next()).id == events[1].id


async def test_a_long_history_is_read_in_pages(web, store, job_id):
    count = 1700
    await store(*((n, b"%d," % n) for n in range(count)), (LAST, b"end", END))
    async with reading(web, job_id) as reader:
        sent = await reader.parts(count + 1)
    assert sent == [*((n, b"%d," % n) for n in range(count)), (LAST, b"end")]


async def test_a_slow_reader_is_disconnected_and_can_resume(web, store, job_id, monkeypatch):
    monkeypatch.setattr(feed, "BACKLOG_BYTES", 100_000)
    await store((0, b"a"))
    async with reading(web, job_id) as slow:
        await slow.parts(1)
        for n in range(1, 80):
            await store((n, b"x" * 200_000))
        numbers = []
        while (event := await slow.next()).name == "part":
            numbers.append(event.data["number"])
        assert event.name == "reconnect"
        assert numbers == [*range(1, len(numbers) + 1)] and len(numbers) < 79
    async with reading(web, job_id, after=slow.last_id) as reader:
        assert (await reader.next()).data["number"] == len(numbers) + 1


async def test_sends_heartbeats_while_idle(web, store, job_id, monkeypatch):
    monkeypatch.setattr(feed, "HEARTBEAT_SECONDS", 0.05)
    await store((0, b"a"))
    async with reading(web, job_id) as reader:
        await reader.parts(1)
        with pytest.raises(TimeoutError):
            await reader.next(1)
        assert reader.comments > 2


async def test_a_batch_committed_late_is_sent(web, pool, store, job_id):
    await store((0, b"0"))
    async with reading(web, job_id) as reader, pool.acquire() as slow:
        await reader.parts(1)
        async with slow.transaction():
            await store_batch(slow, [part(job_id, n, b"%d" % n) for n in range(1, 300)])
            await store(*((n, b"%d" % n) for n in range(300, 400)))
            assert await reader.parts(100) == [(n, b"%d" % n) for n in range(300, 400)]
            last_id = reader.last_id
        expected = [(n, b"%d" % n) for n in range(1, 300)]
        assert sorted(await reader.parts(299)) == expected
    async with reading(web, job_id, after=last_id) as reader:
        assert sorted(await reader.parts(299)) == expected


async def test_last_parts_are_sent_in_commit_order(web, pool, store, job_id):
    await store((0, b"x"))
    async with reading(web, job_id) as reader, pool.acquire() as slow:
        await reader.parts(1)
        async with slow.transaction():
            await store_batch(slow, [part(job_id, LAST, b"first", attempt="")])
            await store((LAST, b"second"))
            assert await reader.parts(1) == [(LAST, b"second")]
        assert await reader.parts(1) == [(LAST, b"first")]


async def test_final_follows_the_parts_behind_a_gap(web, pool, store, job_id):
    await store((0, b"a"))
    async with reading(web, job_id) as reader:
        await reader.parts(1)
        async with pool.acquire() as connection, connection.transaction():
            await store_batch(connection, [part(job_id, 2, b"c", final=True)])
            await aggregation.aggregate(connection, job_id, force=False, restore=False)
        assert await reader.parts(1) == [(2, b"c")]
        assert (await reader.next()).name == "final"


async def test_many_replaced_parts_are_sent_in_pages(web, store, job_id):
    await store(*((n, b"old") for n in range(1200)))
    async with reading(web, job_id) as reader:
        await reader.parts(1200)
        last_id = reader.last_id
        await store(*((n, b"new%d" % n) for n in range(1200)))
        assert sorted(await reader.parts(1200)) == [(n, b"new%d" % n) for n in range(1200)]
    async with reading(web, job_id, after=last_id) as reader:
        assert len(await reader.parts(1200)) == 1200


async def test_streams_reconnect_when_web_stops(settings, pool, store, job_id):
    await store((0, b"a"))
    stopping = AsyncExitStack()
    web = await stopping.enter_async_context(serving(settings, pool))
    async with (
        httpx.AsyncClient(base_url=web.base_url, headers=web.headers) as client,
        reading(client, job_id) as reader,
    ):
        await reader.parts(1)
        following = asyncio.create_task(reader.next())
        await stopping.aclose()
        assert (await following).name == "reconnect"
