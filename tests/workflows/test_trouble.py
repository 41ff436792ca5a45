"""Lifecycles with a faulty, refusing or unreachable archive, and with long histories."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from prometheus_client import REGISTRY
from temporalio import activity

from activities.logs import ArchiveActivities, DatabaseActivities
from activities.types import AGGREGATE, AggregateInput
from db import maintenance
from db.parts import store_batch
from logflume.domain import Content, Total
from tests.support.driver import OPTIONS, Driver
from tests.support.parts import part, replace_whole, store_parts
from tests.support.sweeper import LockedArchive, wrong_key
from tests.support.waiting import until
from workflows.lifecycle_types import CONTENT_REPLACED, PARTS_STORED, PartsStored
from workflows.policies import LOCAL_BYTES


class TroubledArchive(LockedArchive):
    """The real archive, with a hook after each upload."""

    uploads = 0
    after_upload: Callable[[int], Awaitable[None]] | None = None

    async def upload(self, *arguments: Any, **named: Any) -> None:
        await super().upload(*arguments, **named)
        self.uploads += 1
        if self.after_upload:
            await self.after_upload(self.uploads)


class WatchedDatabase(DatabaseActivities):
    """The real activities, with a hook after the first aggregation."""

    meanwhile: Callable[[], Awaitable[None]] | None = None

    @activity.defn(name=AGGREGATE)
    async def aggregate(self, argument: AggregateInput) -> Content:
        content = await super().aggregate(argument)
        if self.meanwhile:
            meanwhile, self.meanwhile = self.meanwhile, None
            await meanwhile()
        return content


@pytest.fixture
def database_activities(pool):
    return WatchedDatabase(pool)


@pytest.fixture
def archive(settings):
    return TroubledArchive(settings.s3, 4)


@pytest.fixture
def archive_activities(pool, archive):
    return ArchiveActivities(pool, archive)


@pytest.mark.parametrize(
    "corrupted",
    [b"precioux", b"precious and more", b"prec", b""],
    ids=["same length", "longer", "truncated", "empty"],
)
async def test_an_object_that_fails_verification_is_archived_again(driver, archive, corrupted):
    async def corrupt(upload: int) -> None:
        if upload == 1:
            driver.put(corrupted)

    archive.after_upload = corrupt
    await driver.whole_log(b"precious")
    outcome = await driver.result()
    assert (driver.archived(), outcome.archive_attempts) == (b"precious", 2)


async def test_a_missing_object_is_archived_again(driver, archive):
    async def lose(upload: int) -> None:
        if upload == 1:
            await archive.delete(driver.job_id)

    archive.after_upload = lose
    await driver.whole_log(b"precious")
    await driver.result()
    assert driver.archived() == b"precious"


async def test_each_step_of_a_lifecycle_is_counted(driver, archive):
    async def lose(upload: int) -> None:
        if upload == 1:
            await archive.delete(driver.job_id)

    archive.after_upload = lose
    before = counters()
    end = part(driver.job_id, 4, b"e", final=True, total=Total(5, 5, "0" * 64))
    await driver.store(part(driver.job_id, 1, b"b"), end, final=True, begun=True)
    await driver.result()
    assert {name: value - before[name] for name, value in counters().items()} == {
        "aggregated_logs_total": 1,
        "archive_attempts_total": 2,
        "archive_mismatches_total": 1,
        "verified_logs_total": 1,
        "verified_bytes_total": 2,
        "missing_parts_total": 3,
        "incomplete_logs_total": 1,
        "final_to_verified_seconds_count": 1,
        "purged_logs_total": 1,
    }


def counters() -> dict[str, float]:
    names = (
        *("aggregated_logs_total", "archive_attempts_total", "archive_mismatches_total"),
        *("verified_logs_total", "verified_bytes_total", "missing_parts_total"),
        *("incomplete_logs_total", "final_to_verified_seconds_count", "purged_logs_total"),
    )
    return {name: REGISTRY.get_sample_value(f"logflume_worker_{name}") or 0 for name in names}


async def test_a_log_is_stuck_after_all_tries_until_it_is_archived_again(driver, archive):
    async def corrupt(_: int) -> None:
        driver.put(b"wrong")

    archive.after_upload = corrupt
    await driver.whole_log(b"precious")
    await driver.sleep(600)
    state = await driver.until_phase("stuck")
    assert state.archive_attempts == OPTIONS.archive_tries
    assert "verify: archived 5 bytes" in state.last_error
    row = await driver.row()
    assert not row.archive_verified and row.purged_at is None
    archive.after_upload = None
    await driver.archive_again()
    await driver.result()
    assert driver.archived() == b"precious"


async def test_a_log_that_the_archive_refuses_is_stuck_until_parts_arrive(
    driver, archive, settings
):
    archive.locked = wrong_key(settings)
    await driver.whole_log(b"precious")
    await driver.sleep(600)
    state = await driver.until_phase("stuck")
    assert "SignatureDoesNotMatch" in state.last_error
    archive.locked = None
    await driver.store(part(driver.job_id, 2, b", still"))  # new parts resume a stuck log too
    await driver.result()
    assert driver.archived() == b"precious, still"


async def test_content_that_changes_during_archiving_is_never_marked_verified(driver, archive):
    async def replace_meanwhile(upload: int) -> None:
        if upload == 1:
            await replace_whole(driver.pool, driver.job_id, b"the new text")

    archive.after_upload = replace_meanwhile
    await driver.whole_log(b"the old text")
    await driver.result()
    assert driver.archived() == b"the new text"


async def test_content_that_changes_before_the_purge_is_not_purged(driver):
    await driver.whole_log(b"the old text")
    await driver.verified()
    # No signal: the drain that committed this crashed.
    await store_parts(driver.pool, [part(driver.job_id, 0, b"b-side", attempt="b", final=True)])
    await driver.result()
    assert driver.archived() == b"b-side"
    assert (await driver.row()).purged_at


async def test_a_log_of_several_slices_is_archived_exactly(driver, settings):
    content = bytes(range(256)) * (settings.s3.slice_bytes * 5 // 2 // 256)
    await driver.whole_log(content)
    outcome = await driver.result()
    assert (driver.archived(), outcome.bytes) == (content, len(content))


@pytest.mark.timeout(300)
@pytest.mark.parametrize("options", [replace(OPTIONS, history_events=60)], ids=["short"])
async def test_continuing_as_new_loses_no_part(driver):
    await driver.store(part(driver.job_id, 0, b"0,"), begun=True)
    first = (await driver.describe()).run_id
    for number in range(1, 60):
        await driver.store(part(driver.job_id, number, b"%d," % number))
    await driver.until(lambda state: state.parts >= 60)
    assert (await driver.describe()).run_id != first
    await driver.store(part(driver.job_id, 60, final=True), final=True)
    outcome = await driver.result()
    assert driver.archived() == b"".join(b"%d," % number for number in range(60))
    assert outcome.parts == 61


async def test_a_final_part_signalled_during_an_aggregation_is_not_lost(
    driver, database_activities
):
    """The server schedules the aggregation of a large log, so signals are handled meanwhile."""

    async def end() -> None:
        await driver.store(part(driver.job_id, 1, b"b", final=True), final=True)
        await driver.until(lambda state: state.parts >= 2)

    database_activities.meanwhile = end
    started = await driver.now()
    await driver.store(part(driver.job_id, 0, b"a"))  # not begun: the workflow aggregates at once
    await driver.signal(PARTS_STORED, PartsStored(0, 2 * LOCAL_BYTES))
    await driver.result()
    passed = await driver.now() - started
    assert driver.archived() == b"ab"
    assert passed.total_seconds() < OPTIONS.idle_timeout_seconds + OPTIONS.purge_seconds


async def test_duplicated_and_lost_signals_change_nothing(driver):
    await driver.store(part(driver.job_id, 0, b"a"), begun=True)
    await store_parts(driver.pool, [part(driver.job_id, 1, b"b")])  # never signalled
    final = part(driver.job_id, 2, b"c", final=True)
    await driver.store(final, final=True)
    await driver.signal(PARTS_STORED, PartsStored(1, 1, final=True))  # signalled twice
    outcome = await driver.result()
    assert (driver.archived(), outcome.parts) == (b"abc", 3)


async def test_a_repeated_signal_of_replaced_content_keeps_the_new_object(driver):
    await driver.whole_log(b"with a secret")
    await driver.verified()
    await driver.replace(b"Log removed")
    await driver.signal(CONTENT_REPLACED)
    await driver.result()
    await driver.signal(CONTENT_REPLACED)  # once more, after completion
    await driver.result()
    row = await driver.row()
    assert (driver.archived(), row.archive_verified) == (b"Log removed", True)


async def test_a_log_is_stuck_until_the_archive_deletes_removed_text(driver, archive, settings):
    await driver.whole_log(b"with a secret")
    await driver.verified()
    archive.locked = wrong_key(settings)
    await driver.replace(b"")
    await driver.sleep(600)
    state = await driver.until_phase("stuck")
    assert "SignatureDoesNotMatch" in state.last_error
    archive.locked = None
    await driver.archive_again()
    await driver.until_phase("receiving")
    assert driver.archived() is None


@pytest.mark.parametrize("options", [replace(OPTIONS, history_events=50)], ids=["short"])
async def test_tries_are_counted_across_continue_as_new(driver, archive):
    async def corrupt(_: int) -> None:
        driver.put(b"wrong")

    archive.after_upload = corrupt
    await driver.whole_log(b"precious")
    await driver.sleep(600)
    state = await driver.until_phase("stuck")
    assert state.archive_attempts == OPTIONS.archive_tries


async def test_a_failed_local_activity_is_retried_by_the_server(driver):
    """For example during maintenance."""
    parts = [part(driver.job_id, 0, b"one log"), part(driver.job_id, 1, final=True)]
    async with driver.pool.acquire() as connection:
        await store_batch(connection, parts)
        await maintenance.switch_on(connection, timedelta(minutes=1))
        await driver.signal(PARTS_STORED, PartsStored(2, 7, final=True, begun=True))
        await driver.sleep(driver.options.settle_seconds + 1)
        await until(lambda: is_retried_by_the_server(driver))
        await maintenance.switch_off(connection)
    assert (await driver.result()).parts == 2
    assert driver.archived() == b"one log"


async def is_retried_by_the_server(driver: Driver) -> bool:
    pending = (await driver.describe()).raw_description.pending_activities
    return [one.activity_type.name for one in pending] == [AGGREGATE]
