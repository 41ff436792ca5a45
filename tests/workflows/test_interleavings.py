"""Random events and lost, late or duplicated signals, checked against a model of the log."""

import asyncio
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from db.parts import store_batch
from drain.flush import _summary
from tests.support.driver import OPTIONS, Driver
from tests.support.model import Model, contents, parts
from tests.support.parts import part, received_now, write_whole
from workflows.lifecycle_types import ARCHIVE_AGAIN, CONTENT_REPLACED, PARTS_STORED, PartsStored

# What happens to the signal of an event.
signals = st.sampled_from(["lost", "sent", "sent", "duplicated", "delayed"])
events = st.one_of(
    st.tuples(st.lists(parts, min_size=1, max_size=3), signals),
    st.tuples(contents, signals),
    st.sampled_from([1, 15, 100, 700]),  # seconds that pass
    st.sampled_from(["delayed signals", ARCHIVE_AGAIN]),
)


@pytest.fixture
def options():
    """Short histories, so that runs continue as new at any time."""
    return replace(OPTIONS, purge_seconds=60, idle_timeout_seconds=600, history_events=40)


@settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(happened=st.lists(events, max_size=10))
async def test_the_archive_matches_the_model(driver, numbers, happened):
    log = replace(driver, job_id=next(numbers))
    model = Model()
    await apply(log, model, happened)
    # As the sweep does if no signal arrived.
    await log.signal(PARTS_STORED, PartsStored(0, 0, final=True))
    outcome = await log.result()
    assert log.archived() == (model.content if outcome.parts else None)
    if outcome.parts:
        assert (await log.row()).purged_at
    else:
        assert model.content == b""


async def apply(log: Driver, model: Model, happened) -> None:
    delayed: list[tuple] = []
    for one in happened:
        if isinstance(one, int):
            await log.sleep(one)
        elif one == ARCHIVE_AGAIN:
            await log.archive_again()
        elif isinstance(one, str):
            while delayed:
                await log.signal(*delayed.pop())  # the last first
        else:
            what, signal = one
            sent = await commit(log, model, what)
            if signal == "delayed":
                delayed += sent
            for arguments in sent * {"sent": 1, "duplicated": 2}.get(signal, 0):
                await log.signal(*arguments)


async def commit(log: Driver, model: Model, what) -> list[tuple]:
    """Store parts or replace the content; returns the signals."""
    async with log.pool.acquire() as connection:
        if isinstance(what, bytes):
            model.write(what)
            await write_whole(connection, log.job_id, what)
            return [(CONTENT_REPLACED,)]
        received = [received_now(log.job_id, one) for one in what]
        for one in received:
            model.receive(one)
        placed = await store_batch(connection, received)
        return [(PARTS_STORED, added) for _, added in _summary(placed)]


async def test_a_storm_of_signals_across_runs_that_continue_as_new(driver):
    """From several drains at once, duplicated and out of order."""
    drains, each = 5, 30
    await driver.store(part(driver.job_id, 0), begun=True)
    first = (await driver.describe()).run_id

    async def drain(place: int) -> None:
        for number in range(1 + place, 1 + drains * each, drains):
            one = part(driver.job_id, number, b"%d," % number, final=number == drains * each // 2)
            await driver.store(one, final=one.final)
            await driver.signal(PARTS_STORED, PartsStored(1, 3, final=number % 7 == 0))

    await asyncio.gather(*(drain(place) for place in range(drains)))
    await driver.signal(PARTS_STORED, PartsStored(0, 0, final=True))
    await driver.result()
    assert (await driver.describe()).run_id != first
    every = b"".join(b"%d," % number for number in range(1, 1 + drains * each))
    assert driver.archived() == every
