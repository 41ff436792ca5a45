"""Logs above the size limit: cut, with a notice, but neither lost nor stuck."""

from random import Random

import pytest

from db import aggregation, logs, reading
from db.parts import store_batch
from logflume.domain import LAST
from tests.support.parts import finish, part, pieces, row_content, write_whole
from tests.support.services import serving

LIMIT = 1000


def notice(left_out: int) -> bytes:
    return (
        f"\n\x1b[0m\nlogflume: this log was cut after {LIMIT:,} bytes, the size limit; "
        f"{left_out:,} more bytes were left out.\n"
    ).encode()


async def aggregate(connection, job_id: int, *, restore: bool = False):
    return await aggregation.aggregate(
        connection, job_id, force=True, restore=restore, max_bytes=LIMIT
    )


@pytest.mark.parametrize("over", [-1, 0, 1, 700, 123_456])
async def test_the_content_is_cut_at_the_limit_and_ends_with_a_notice(connection, job_id, over):
    text = Random(over).randbytes(LIMIT + over)
    cuts = sorted([0, len(text), *Random(over).sample(range(len(text)), 9)])
    parts = [part(job_id, n, text[cuts[n] : cuts[n + 1]]) for n in range(9)]
    parts += [part(job_id, LAST, text[cuts[9] :], final=True)]
    await write_whole(connection, job_id, b"")
    await store_batch(connection, parts[::-1])
    made = await aggregate(connection, job_id)
    expected = text[:LIMIT] + notice(over) if over > 0 else text
    assert await row_content(connection, job_id) == expected
    assert (made.bytes, made.parts, made.left_out_bytes) == (len(expected), 10, max(over, 0))
    log = await reading.find(connection, job_id)
    assert (log.content_bytes, log.left_out_bytes) == (len(expected), over if over > 0 else None)
    assert await aggregate(connection, job_id) == made


async def test_more_parts_change_the_notice_and_a_higher_limit_removes_it(connection, job_id):
    await store_batch(connection, [part(job_id, 0, b"x" * 1500, final=True)])
    await finish(connection, job_id, max_bytes=LIMIT)
    await store_batch(connection, [part(job_id, 1, b"y" * 100)])
    made = await aggregate(connection, job_id)
    assert (made.archived, made.left_out_bytes) == (False, 600)
    assert await row_content(connection, job_id) == b"x" * LIMIT + notice(600)
    again = await aggregation.aggregate(connection, job_id, force=False, restore=True)
    assert (again.bytes, again.left_out_bytes) == (1600, 0)
    assert (await reading.find(connection, job_id)).left_out_bytes is None


async def test_once_its_parts_are_dropped_the_content_is_final(connection, job_id):
    await store_batch(connection, [part(job_id, 0, b"x" * 1500, final=True)])
    archived = await finish(connection, job_id, max_bytes=LIMIT)
    await connection.execute("DELETE FROM log_parts")
    await store_batch(connection, [part(job_id, 0, b"x" * 1500), part(job_id, 7, b"late")])
    made = await aggregate(connection, job_id)
    assert (made.archived, made.purged, made.bytes) == (True, True, len(archived))
    assert (made.parts, made.left_out_bytes) == (1, 500)
    assert not (await reading.find(connection, job_id)).late_parts
    # It can be archived again, from the archived object.
    assert (await aggregate(connection, job_id, restore=True)).needs_archived
    await aggregation.restore_content(connection, job_id, pieces(archived[:99], archived[99:]))
    made = await aggregate(connection, job_id, restore=True)
    assert (made.archived, made.purged, made.bytes) == (False, False, len(archived))
    assert await row_content(connection, job_id) == archived
    await logs.mark_verified(connection, job_id, made.sha256)
    assert await logs.purge(connection, job_id, made.sha256)


async def test_another_attempt_replaces_it(connection, job_id):
    await store_batch(connection, [part(job_id, 0, b"x" * 1500, final=True)])
    await finish(connection, job_id, max_bytes=LIMIT)
    await connection.execute("DELETE FROM log_parts")
    await store_batch(connection, [part(job_id, 0, b"next run", attempt="b", final=True)])
    made = await aggregate(connection, job_id)
    assert (made.attempt, made.left_out_bytes) == ("b", 0)
    assert await row_content(connection, job_id) == b"next run"


async def test_late_parts_merged_into_dropped_ones_are_cut_too(connection, job_id):
    await store_batch(connection, [part(job_id, 0, b"x" * 900, final=True)])
    archived = await finish(connection, job_id, max_bytes=LIMIT)
    await connection.execute("DELETE FROM log_parts")
    await store_batch(connection, [part(job_id, 1, b"y" * 300)])
    assert (await aggregate(connection, job_id)).needs_archived
    await aggregation.restore_content(connection, job_id, pieces(archived))
    made = await aggregate(connection, job_id)
    assert await row_content(connection, job_id) == b"x" * 900 + b"y" * 100 + notice(200)
    assert (made.parts, made.left_out_bytes) == (2, 200)


async def test_readers_see_how_much_was_left_out(settings, pool, connection, job_id):
    async with serving(settings, pool) as web:
        await store_batch(connection, [part(job_id, 0, b"x" * 1500, final=True)])
        assert len((await web.get(f"/logs/{job_id}/raw")).content) == 1500
        await aggregate(connection, job_id)
        assert (await web.get(f"/logs/{job_id}/raw")).content == b"x" * LIMIT + notice(500)
        lifecycle = (await web.get(f"/logs/{job_id}/lifecycle")).json()
        assert (lifecycle["bytes"], lifecycle["left_out_bytes"]) == (LIMIT + len(notice(500)), 500)
