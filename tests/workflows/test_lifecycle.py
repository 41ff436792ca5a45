"""Every path of a log's lifecycle."""

import hashlib

from logflume.domain import Total
from tests.support.parts import part

HOUR = 3600


async def test_a_log_passes_all_phases_until_the_purge(driver):
    await driver.store(part(driver.job_id, 0, b"first "), begun=True)
    assert (await driver.state()).phase == "receiving"
    await driver.store(part(driver.job_id, 1, b"second"))
    await driver.store(part(driver.job_id, 2, final=True), final=True)
    outcome = await driver.result()
    assert driver.archived() == b"first second"
    assert outcome.sha256 == hashlib.sha256(b"first second").hexdigest()
    assert (outcome.bytes, outcome.parts, outcome.missing_parts) == (12, 3, 0)
    assert outcome.archive_attempts == 1
    row = await driver.row()
    assert row.archive_verified and row.purged_at and row.content_sha256 == outcome.sha256
    assert (await driver.state()).phase == "done"
    assert await driver.pool.fetchval("SELECT content FROM logs") is None


async def test_a_log_without_a_final_part_ends_after_the_idle_timeout(driver):
    started = await driver.now()
    await driver.store(part(driver.job_id, 0, b"cut off"), begun=True)
    await driver.result()
    assert driver.archived() == b"cut off"
    assert (await driver.now() - started).total_seconds() > 3 * HOUR


async def test_each_part_extends_the_idle_timeout(driver):
    await driver.store(part(driver.job_id, 0, b"a"), begun=True)
    await driver.sleep(2 * HOUR)
    await driver.store(part(driver.job_id, 1, b"b"))
    await driver.sleep(2 * HOUR)
    assert (await driver.state()).phase == "receiving"
    await driver.store(part(driver.job_id, 2, b"c", final=True), final=True)
    await driver.result()
    assert driver.archived() == b"abc"


async def test_parts_that_arrive_in_the_gap_grace_period_fill_the_gap(driver):
    await driver.store(
        part(driver.job_id, 0, b"a"),
        part(driver.job_id, 2, b"c", final=True),
        final=True,
        begun=True,
    )
    await driver.sleep(15)
    state = await driver.until_phase("settling")
    assert state.missing_parts == 1
    await driver.store(part(driver.job_id, 1, b"b"))
    outcome = await driver.result()
    assert (outcome.missing_parts, driver.archived()) == (0, b"abc")


async def test_a_log_with_a_gap_is_archived_and_the_gap_counted(driver):
    await driver.store(
        part(driver.job_id, 1, b"b"),
        part(driver.job_id, 4, b"e", final=True),
        final=True,
        begun=True,
    )
    outcome = await driver.result()
    assert (outcome.missing_parts, driver.archived()) == (3, b"be")
    assert (await driver.row()).missing_parts == 3


async def test_a_log_that_is_not_complete_waits_for_the_gap_grace_period(driver):
    whole = Total(2, 2, hashlib.sha256(b"ab").hexdigest())
    final = part(driver.job_id, 1, b"b", final=True, total=whole)
    await driver.store(part(driver.job_id, 0, b"X"), final, final=True, begun=True)
    await driver.sleep(15)
    assert (await driver.until_phase("settling")).missing_parts == 0
    assert (await driver.row()).complete is False
    await driver.store(part(driver.job_id, 0, b"a"))
    await driver.result()
    assert ((await driver.row()).complete, driver.archived()) == (True, b"ab")


async def test_late_parts_before_the_purge_are_archived_too(driver):
    await driver.whole_log(b"early ")
    await driver.verified()
    await driver.store(part(driver.job_id, 2, b"late"))
    outcome = await driver.result()
    assert (driver.archived(), outcome.archive_attempts) == (b"early late", 2)


async def test_late_parts_after_completion_start_a_new_run_that_archives_all(driver):
    await driver.whole_log(b"early ")
    first = await driver.result()
    await driver.store(part(driver.job_id, 2, b"late"))
    second = await driver.result()
    assert driver.archived() == b"early late"
    assert (first.parts, second.parts) == (2, 3)
    row = await driver.row()
    assert row.archive_verified and row.purged_at


async def test_a_run_that_finds_nothing_new_ends_at_once(driver):
    await driver.whole_log()
    first = await driver.result()
    verified_at = (await driver.row()).archived_at
    started = await driver.now()
    await driver.store(part(driver.job_id, 0, b"one log"))  # delivered again
    second = await driver.result()
    row = await driver.row()
    assert (second.sha256, second.archive_attempts) == (first.sha256, 0)
    assert (row.archived_at, bool(row.purged_at)) == (verified_at, True)
    assert (await driver.now() - started).total_seconds() < HOUR


async def test_a_final_part_of_a_superseded_attempt_does_not_end_the_log(driver):
    await driver.store(part(driver.job_id, 0, b"old", attempt="a"), begun=True)
    await driver.store(part(driver.job_id, 0, b"new", attempt="b"), begun=True)
    # A drain that saw the old attempt as the log may still signal its end.
    await driver.store(part(driver.job_id, 1, b"", attempt="a", final=True), final=True)
    await driver.sleep(60)
    await driver.until_phase("receiving")
    assert (await driver.row()).aggregated_at is None
    await driver.store(part(driver.job_id, 1, b"er", attempt="b", final=True), final=True)
    await driver.result()
    assert driver.archived() == b"newer"


async def test_signals_out_of_order_lose_nothing(driver):
    """The signal of the final part may overtake the signal of the attempt's start."""
    await driver.store(
        part(driver.job_id, 0, b"all"), part(driver.job_id, 1, final=True), final=True
    )
    await driver.store(begun=True)
    started = await driver.now()
    await driver.verified()
    assert driver.archived() == b"all"
    assert (await driver.now() - started).total_seconds() < HOUR


async def test_replaced_content_replaces_the_archived_object(driver):
    await driver.whole_log(b"with a secret")
    await driver.verified()
    await driver.replace(b"Log removed by a person")
    await driver.result()
    assert driver.archived() == b"Log removed by a person"
    assert await driver.pool.fetchval("SELECT count(*) FROM log_parts WHERE number >= 0") == 0


async def test_content_replaced_after_completion_is_archived(driver):
    await driver.whole_log(b"with a secret")
    await driver.result()
    await driver.replace(b"Log removed")
    await driver.result()
    assert driver.archived() == b"Log removed"


async def test_clearing_a_log_deletes_its_archive_and_waits_for_the_next_attempt(driver):
    await driver.whole_log(b"first attempt")
    await driver.verified()
    await driver.replace(b"")
    await driver.until_phase("receiving")
    assert driver.archived() is None
    # The remaining text of the old runner arrives only now, so it is stale.
    await driver.store(part(driver.job_id, 2, b"left over", final=True))
    await driver.store(part(driver.job_id, 0, b"second attempt", attempt="b"), begun=True)
    await driver.store(part(driver.job_id, 1, attempt="b", final=True), final=True)
    await driver.result()
    assert driver.archived() == b"second attempt"
    assert (await driver.state()).stale_parts == 1


async def test_a_cleared_log_without_new_parts_ends_empty(driver):
    await driver.whole_log()
    await driver.verified()
    await driver.replace(b"")
    outcome = await driver.result()
    assert (outcome.parts, outcome.sha256, driver.archived()) == (0, "", None)


async def test_archiving_again_replaces_a_corrupted_object(driver):
    await driver.whole_log(b"precious")
    await driver.result()
    driver.put(b"something else")
    await driver.archive_again()
    await driver.result()
    assert driver.archived() == b"precious"
    assert (await driver.row()).purged_at


async def test_an_empty_log_is_archived_empty(driver):
    await driver.store(part(driver.job_id, 0, final=True), final=True, begun=True)
    outcome = await driver.result()
    assert (outcome.parts, outcome.bytes, driver.archived()) == (1, 0, b"")


async def test_parts_after_the_drop_of_their_partition_are_merged_into_the_archived_log(driver):
    await driver.store(
        part(driver.job_id, 0, b"a"),
        part(driver.job_id, 2, b"c", final=True),
        final=True,
        begun=True,
    )
    await driver.result()
    await driver.pool.execute("DELETE FROM log_parts")  # like the drop of their partition
    await driver.store(part(driver.job_id, 1, b"b"), part(driver.job_id, 3, b"d"))
    outcome = await driver.result()
    assert (outcome.missing_parts, driver.archived()) == (0, b"abcd")
    row = await driver.row()
    assert row.purged_at and row.content_sha256 == outcome.sha256


async def test_late_parts_are_stuck_if_the_archived_object_was_lost_too(driver):
    await driver.whole_log()
    await driver.result()
    await driver.pool.execute("DELETE FROM log_parts")
    driver.put(b"another log")
    await driver.store(part(driver.job_id, 2, b" and more"))
    await driver.sleep(60)
    state = await driver.until_phase("stuck")
    assert f"job {driver.job_id}" in state.last_error
    assert driver.archived() == b"another log"
    driver.put(b"one log")
    await driver.archive_again()
    await driver.result()
    assert driver.archived() == b"one log and more"
