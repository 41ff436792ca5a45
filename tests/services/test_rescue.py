"""A rescue, which moves parts of unfinished logs to a newer partition, changes no log."""

from datetime import UTC, datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from db import aggregation, partitions, reading
from db.parts import store_batch
from logflume.domain import LAST
from tests.support.partitions import (
    RETENTION,
    ago,
    drop,
    facts,
    make_past,
    name_of,
    old_part,
)
from tests.support.parts import content, finish, write_whole

pytestmark = pytest.mark.usefixtures("at_any_hour")


async def test_a_rescue_changes_neither_content_nor_which_duplicate_counts(connection, job_id):
    await make_past(connection)
    await write_whole(connection, job_id, b"whole, ")
    await connection.execute("UPDATE log_parts SET created_at = $1", ago(5, 1))
    await store_batch(
        connection,
        [
            old_part(job_id, 0, b"superseded", attempt="a", at=ago(5, 2)),
            old_part(job_id, 0, b"first, ", attempt="b", at=ago(5, 3)),
            # The higher id counts, whatever the receive times are.
            old_part(job_id, 1, b"loses", attempt="b", at=ago(3, 9)),
            old_part(job_id, 1, b"early wins", attempt="b", at=ago(3, 8)),
            old_part(job_id, 2, b"loses", attempt="b", at=ago(4)),
            old_part(job_id, 2, b" id wins", attempt="b", at=ago(4)),
            old_part(job_id, LAST, b" x", at=ago(5, 5)),
            old_part(job_id, LAST, b" y", at=ago(3)),
            old_part(job_id, LAST, b" x", at=ago(1)),
        ],
    )
    await connection.execute("UPDATE log_attempts SET began_at = $1 WHERE uuid = 'b'", ago(0))
    # A part of today at the begin of the refuge, where the others are moved to.
    refuge = (await partitions.partitions(connection)).refuge
    await store_batch(connection, [old_part(job_id, 0, b"newest, ", attempt="b", at=refuge.begin)])
    text = b"whole, newest, early wins id wins x y"
    assert await content(connection, job_id) == text
    await aggregation.aggregate(connection, job_id, force=True, restore=False)
    before = await facts(connection, job_id)
    assert before[-1] is True
    [log_id] = await partitions.unfinished(connection, await name_of(connection, ago(5)))
    assert await partitions.rescue(connection, log_id) == 10
    assert await facts(connection, job_id) == before
    assert await connection.fetchval("SELECT min(created_at) FROM log_parts") == refuge.begin
    for name in await partitions.expired(connection, RETENTION):
        assert await drop(connection, name)
    assert await facts(connection, job_id) == before
    made = await aggregation.aggregate(connection, job_id, force=True, restore=True)
    stored = await reading.content_slice(connection, log_id, made.sha256, 0, 1000)
    assert stored == text


async def test_parts_received_after_a_rescue_replace_the_moved_ones(connection, job_id):
    await make_past(connection)
    await store_batch(connection, [old_part(job_id, 0, b"old", at=ago(5))])
    await partitions.rescue(connection, await connection.fetchval("SELECT id FROM logs"))
    received_at = datetime.now(UTC)
    await store_batch(connection, [old_part(job_id, 0, b"new", at=received_at)])
    assert await content(connection, job_id) == b"new"


async def test_parts_dropped_before_a_rescue_stay_dropped(connection, job_id):
    await make_past(connection)
    await store_batch(connection, [old_part(job_id, 0, b"gone", at=ago(6), final=True)])
    await finish(connection, job_id)
    assert await drop(connection, await name_of(connection, ago(6)))
    await store_batch(connection, [old_part(job_id, 1, b"late", at=ago(4))])
    [log_id] = await partitions.unfinished(connection, await name_of(connection, ago(4)))
    assert await partitions.rescue(connection, log_id) == 1
    made = await aggregation.aggregate(connection, job_id, force=True, restore=False)
    assert made.needs_archived


async def test_a_reader_can_continue_while_parts_are_moved(connection, job_id):
    await make_past(connection)
    parts = [old_part(job_id, n, b"%d," % n, at=ago(5, n)) for n in range(5)]
    await store_batch(connection, parts)
    found = await reading.snapshot(connection, await reading.find(connection, job_id))
    assert found.parts
    await partitions.rescue(connection, found.log.id)
    read = await reading.read_parts(connection, found.log.id, found.parts, range(5))
    assert b"".join(one.content for one in read) == b"0,1,2,3,4,"


moments = st.tuples(st.integers(0, 6), st.integers(0, 3)).map(lambda at: ago(*at))
histories = st.lists(
    st.tuples(
        moments,
        st.sampled_from(["", "a", "b"]),
        st.sampled_from([0, 1, 2, LAST]),
        st.sampled_from([b"x", b"y", b"\0"]),
    ),
    min_size=1,
    max_size=12,
)


@pytest.fixture
def plain(runner, blocking):
    runner.run(make_past(blocking))
    return blocking


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(received=histories, aggregated=st.integers(0, 12))
def test_a_rescue_changes_no_history_of_a_log(runner, plain, numbers, received, aggregated):
    runner.run(check_rescue(plain, next(numbers), received, aggregated))


async def check_rescue(connection, job_id, received, aggregated):
    for place, (at, attempt, number, text) in enumerate(received):
        await store_batch(connection, [old_part(job_id, number, text, at=at, attempt=attempt)])
        if place == aggregated:
            await aggregation.aggregate(connection, job_id, force=True, restore=False)
    before = await facts(connection, job_id)
    log_id = await connection.fetchval("SELECT id FROM logs WHERE job_id = $1", job_id)
    await partitions.rescue(connection, log_id)
    assert await facts(connection, job_id) == before
    refuge = (await partitions.partitions(connection)).refuge
    oldest = await connection.fetchval(
        "SELECT min(created_at) FROM log_parts WHERE log_id = $1", log_id
    )
    assert oldest >= refuge.begin
