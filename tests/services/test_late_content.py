"""Parts that arrive after the earlier parts of their log were dropped with their partition."""

import asyncio
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from activities.logs import ArchiveActivities
from db import aggregation, logs, reading
from db.parts import store_batch
from logflume.archive.store import Archive, key
from logflume.domain import LAST, Content
from logflume.errors import PartsGone
from tests.support.activities import run_activity
from tests.support.model import Model, contents, parts
from tests.support.parts import BEGIN, content, finish, part, pieces, row_content, write_whole
from tests.support.s3 import s3
from tests.support.services import serving
from tests.support.sse import reading as streaming
from tests.support.waiting import until, until_blocked

# Later than all before them, so that no finished attempt becomes the log again.
late_parts = st.builds(
    lambda one, attempt: replace(one, attempt=attempt, published_at=BEGIN + timedelta(days=3)),
    parts,
    st.sampled_from(["", "a", "b", "c"]),
)


async def aggregate(connection, job_id: int, archived: bytes, *, restore=False) -> Content:
    """Aggregate as the workflow does: with the archived object if parts were dropped."""
    made = await aggregation.aggregate(connection, job_id, force=True, restore=restore)
    if made.needs_archived:
        await aggregation.restore_content(connection, job_id, pieces(archived[:3], archived[3:]))
        made = await aggregation.aggregate(connection, job_id, force=True, restore=restore)
    return made


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    before=st.lists(parts, min_size=1, max_size=8),
    whole=contents,
    late=st.lists(st.lists(late_parts, min_size=1, max_size=4), min_size=1, max_size=3),
    left=st.integers(0, 3),
)
def test_sql_and_model_agree(runner, blocking, numbers, before, whole, late, left):
    runner.run(check(blocking, next(numbers), before, whole, late, left))


async def check(connection, job_id: int, before, whole: bytes, late, left: int) -> None:
    model = Model(whole=whole)
    await write_whole(connection, job_id, whole)
    before = [replace(one, job_id=job_id) for one in before]
    for one in before:
        model.receive(one)
        await store_batch(connection, [one])
    archived = await finish(connection, job_id)
    assert archived == model.content
    model.lose_parts()
    log = await reading.find(connection, job_id)
    # The first parts are dropped, as with their partition; some others may still exist.
    await connection.execute(
        "DELETE FROM log_parts WHERE log_id = (SELECT id FROM logs WHERE job_id = $1) AND id NOT IN"
        " (SELECT id FROM log_parts ORDER BY id DESC LIMIT $2)",
        job_id,
        min(left, len(before) - 1),
    )
    for batch in late:
        received = [replace(one, job_id=job_id) for one in batch]
        for one in received:
            model.receive(one)
        await store_batch(connection, received)
        made = await aggregate(connection, job_id, archived)
        row = await row_content(connection, job_id)
        assert (archived if row is None else row) == model.content
        assert (made.bytes, made.missing_parts) == (len(model.content), model.missing)
        if not await reading.has_all_parts(connection, log.id):
            model.lose_parts()  # their content is final from now on


async def test_a_late_part_fills_its_gap_and_a_duplicate_changes_nothing(pool, job_id):
    async with pool.acquire() as connection:
        await store_batch(
            connection,
            [part(job_id, 0, b"a"), part(job_id, 2, b"c", final=True), part(job_id, LAST, b"z")],
        )
        archived = await finish(connection, job_id)
        await connection.execute("DELETE FROM log_parts")
        await store_batch(connection, [part(job_id, 2, b"c", final=True)])
        made = await aggregation.aggregate(connection, job_id, force=False, restore=False)
        assert (made.archived, made.purged, made.missing_parts) == (True, True, 1)
        await store_batch(connection, [part(job_id, 1, b"b"), part(job_id, LAST, b"z")])
        made = await aggregate(connection, job_id, archived)
        assert (made.archived, made.parts, made.missing_parts) == (False, 4, 0)
        assert await row_content(connection, job_id) == b"abcz"


async def test_parts_are_not_merged_into_an_object_with_other_content(pool, job_id):
    async with pool.acquire() as connection:
        await store_batch(connection, [part(job_id, 0, b"a", final=True)])
        await finish(connection, job_id)
        await connection.execute("DELETE FROM log_parts")
        await store_batch(connection, [part(job_id, 1, b"b")])
        with pytest.raises(PartsGone, match=f"job {job_id}: .* archived object"):
            await aggregate(connection, job_id, b"other")
        log = await reading.find(connection, job_id)
        assert log.archive_verified and log.purged_at


async def test_content_replaced_during_a_restore_needs_no_restore(pool, job_id):
    async with pool.acquire() as connection, pool.acquire() as web:
        await store_batch(connection, [part(job_id, 0, b"a", final=True)])
        archived = await finish(connection, job_id)
        async with web.transaction():
            await write_whole(web, job_id, b"new")
            restoring = asyncio.create_task(
                aggregation.restore_content(connection, job_id, pieces(archived))
            )
            await until_blocked(pool, connection.get_server_pid())
        await restoring
        assert await content(connection, job_id) == b"new"


async def test_a_log_with_too_many_gaps_is_left_unchanged(pool, job_id, monkeypatch):
    monkeypatch.setattr(aggregation, "MAX_RUNS", 2)
    async with pool.acquire() as connection:
        given = [part(job_id, number, b"x", final=True) for number in (0, 2, 4)]
        await store_batch(connection, given)
        archived = await finish(connection, job_id)
        await connection.execute("DELETE FROM log_parts")
        await store_batch(connection, [part(job_id, 1, b"b")])
        with pytest.raises(PartsGone, match=str(job_id)):
            await aggregate(connection, job_id, archived)


async def test_readers_see_the_archived_log_until_parts_are_merged(pool, settings, job_id):
    async with pool.acquire() as connection, serving(settings, pool) as web:
        await store_batch(connection, [part(job_id, 0, b"archived", final=True)])
        archived = await finish(connection, job_id)
        log = await reading.find(connection, job_id)
        s3(settings).put_object(
            Bucket=settings.s3.bucket,
            Key=key(job_id),
            Body=archived,
            Metadata={"sha256": log.content_sha256},
        )
        await connection.execute("DELETE FROM log_parts")
        await store_batch(connection, [part(job_id, 1, b", late")])
        assert (await web.get(f"/logs/{job_id}/raw")).content == archived
        async with streaming(web, job_id) as reader:
            assert await reader.parts(1) == [(0, archived)]
            seen = (await reader.next()).id
        await aggregate(connection, job_id, archived)
        async with streaming(web, job_id, after=seen) as reader:
            assert (await reader.next()).name == "reset"
            assert await reader.parts(1) == [(0, b"archived, late")]


async def test_parts_in_flight_during_a_merge_prevent_the_purge(pool, job_id):
    """Neither in the content nor recorded as late: their drain may crash before it signals."""
    async with pool.acquire() as connection, pool.acquire() as drain:
        await write_whole(connection, job_id, b"whole")
        await store_batch(connection, [part(job_id, 0, b"a"), part(job_id, 1, b"b")])
        archived = await finish(connection, job_id)
        await connection.execute("DELETE FROM log_parts")
        await store_batch(connection, [part(job_id, 0, b"c", attempt="c")])
        async with drain.transaction():
            await store_batch(drain, [part(job_id, 1, b"d", attempt="c")])
            made = await aggregate(connection, job_id, archived)
        await logs.mark_verified(connection, job_id, made.sha256)
        assert not await logs.purge(connection, job_id, made.sha256)
        made = await aggregate(connection, job_id, archived)
        await logs.mark_verified(connection, job_id, made.sha256)
        assert await row_content(connection, job_id) == b"wholecd"
        assert await logs.purge(connection, job_id, made.sha256)


async def test_late_parts_in_flight_during_an_aggregation_are_noted(pool, job_id):
    async with pool.acquire() as connection, pool.acquire() as drain:
        await store_batch(connection, [part(job_id, 0, b"a"), part(job_id, 1, final=True)])
        await finish(connection, job_id)
        await store_batch(connection, [part(job_id, 0, b"a")])  # delivered again
        async with drain.transaction():
            await store_batch(drain, [part(job_id, 2, b"c")])
            worker = connection.get_server_pid()
            making = asyncio.create_task(
                aggregation.aggregate(connection, job_id, force=False, restore=False)
            )
            await until_blocked(pool, worker)
        assert (await making).parts == 3


async def test_a_slow_archive_leaves_connections_for_others(pool, settings, job_id):
    reading_it, slow = [], asyncio.Event()

    class Slow(Archive):
        async def stream(self, job_id, **_):
            reading_it.append(job_id)
            await slow.wait()
            yield b"archived"

    async with pool.acquire() as connection:
        await store_batch(connection, [part(job_id, 0, b"archived", final=True)])
        await finish(connection, job_id)
    activities = ArchiveActivities(pool, Slow(settings.s3, 1))
    restoring = [
        asyncio.create_task(run_activity(activities.restore, job_id))
        for _ in range(settings.database.connections)
    ]

    async def is_reading() -> bool:
        return len(reading_it) > 1

    try:
        await until(is_reading)
        async with pool.acquire(timeout=20) as connection:
            assert await row_content(connection, job_id) is None
    finally:
        slow.set()
        await asyncio.gather(*restoring)
    assert await pool.fetchval("SELECT content FROM logs") == b"archived"
