"""The sweep on a real Temporal server: which logs it re-drives, and which it leaves alone."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import asyncpg
import msgspec
import pytest
from temporalio.client import Client

from activities.logs import ArchiveActivities, DatabaseActivities
from activities.sweep import SweepActivities
from logflume.archive.store import key
from logflume.settings import Settings
from tests.support.histories import record
from tests.support.parts import part
from tests.support.s3 import s3
from tests.support.sweeper import (
    OPTIONS,
    QUIET,
    LockedArchive,
    Sweeper,
    WatchedWorkflows,
    last_sweep,
    wrong_key,
)
from tests.support.waiting import until
from tests.support.workers import lifecycle_workers
from workflows.client.logs import LogWorkflows
from workflows.client.schedules import Recurring, apply
from workflows.lifecycle_types import PartsStored
from workflows.sweep import PAGE_LOGS, Sweep, SweepInput, SweepResult


@pytest.fixture
async def sweeper(
    request: pytest.FixtureRequest,
    client: Client,
    pool: asyncpg.Pool,
    settings: Settings,
    name: str,
) -> AsyncIterator[Sweeper]:
    """A sweeper, with a worker that serves both queues."""
    task_queue = settings.temporal.task_queue
    workflows = LogWorkflows(client, task_queue, OPTIONS)
    store = LockedArchive(settings.s3, 4)
    database, archive = DatabaseActivities(pool), ArchiveActivities(pool, store)
    sweep = SweepActivities(pool, workflows)
    async with lifecycle_workers(client, task_queue, database, archive, Sweep, [sweep.sweep_page]):
        yield (one := Sweeper(client, pool, settings, workflows, sweep, store, name))
        if request.config.getoption("--record-histories") and one.recorded:
            await record(one.recorded, f"sweep_{request.node.name.removeprefix('test_')}")


async def test_a_workflow_that_missed_the_final_part_is_signalled_again(sweeper, job_id, numbers):
    ended, running = job_id, next(numbers)
    for one in (ended, running):
        await sweeper.store(part(one, 0, b"begin "))
        await sweeper.workflows.parts_stored(one, PartsStored(1, 6, begun=True))
    await sweeper.until_seen(ended, running)
    await sweeper.store(part(ended, 1, b"end", final=True))  # and the drain crashes
    result = await sweeper.sweep()
    assert (result.found, result.signalled, result.running) == (2, 1, 1)
    await sweeper.finish(ended)
    assert sweeper.archived(ended) == b"begin end"
    assert (await sweeper.until_phase(running, "receiving")).parts == 1


async def test_a_log_without_a_signal_is_found_after_the_quiet_time(sweeper, job_id):
    await sweeper.store_whole(job_id, b"all of it")
    assert await sweeper.sweep(quiet=600) == SweepResult(pages=1)
    assert await sweeper.sweep() == SweepResult(found=1, started=1, pages=1)
    await sweeper.finish(job_id)
    assert sweeper.archived(job_id) == b"all of it"
    assert await sweeper.sweep() == SweepResult(pages=1)


async def test_the_idle_timeout_counts_from_the_last_part(sweeper, job_id):
    """A log that was idle for long enough before its workflow started has ended."""
    cut_off = part(job_id, 0, b"cut off")
    long_ago = datetime.now(UTC) - timedelta(seconds=OPTIONS.idle_timeout_seconds)
    await sweeper.store(msgspec.structs.replace(cut_off, received_at=long_ago))
    await sweeper.sweep()
    await sweeper.finish(job_id)
    assert sweeper.archived(job_id) == b"cut off"


async def test_an_unfinished_log_gets_a_workflow_that_waits(sweeper, job_id):
    now = datetime.now(UTC)
    await sweeper.store(msgspec.structs.replace(part(job_id, 0, b"a"), received_at=now))
    assert (await sweeper.sweep()).started == 1
    await sweeper.until_phase(job_id, "receiving")
    await sweeper.store(part(job_id, 1, b"b", final=True))
    await sweeper.workflows.parts_stored(job_id, PartsStored(1, 1, final=True))
    await sweeper.finish(job_id)
    assert sweeper.archived(job_id) == b"ab"


async def test_late_parts_of_a_closed_workflow_are_found(sweeper, job_id):
    await sweeper.store_whole(job_id, b"early ")
    await sweeper.sweep()
    await sweeper.finish(job_id)
    await sweeper.store(part(job_id, 2, b"late"))
    assert (await sweeper.sweep()).started == 1
    await sweeper.finish(job_id)
    assert sweeper.archived(job_id) == b"early late"


async def test_an_overdue_purge_does_not_wait_again(sweeper, job_id):
    """The workflow that waited to purge was lost; the next one counts from the verification."""
    waiting = replace(sweeper.workflows, options=replace(OPTIONS, purge_seconds=3600))
    sweeper.activities._workflows = waiting
    await sweeper.store_whole(job_id, b"archived")
    await sweeper.sweep()
    await sweeper.until_phase(job_id, "verified")
    await sweeper.log(job_id).terminate()
    await sweeper.until_seen(job_id, runs=False)
    await sweeper.pool.execute("UPDATE logs SET archived_at = archived_at - interval '1 hour'")
    assert (await sweeper.sweep()).started == 1
    await sweeper.finish(job_id)
    assert await sweeper.pool.fetchval("SELECT purged_at IS NOT NULL FROM logs")


async def test_logs_with_a_running_or_stuck_workflow_are_left_alone(sweeper, job_id, numbers):
    stuck = next(numbers)
    await sweeper.store(part(job_id, 0, b"running"))
    await sweeper.workflows.parts_stored(job_id, PartsStored(1, 7, begun=True))
    await sweeper.until_phase(job_id, "receiving")
    sweeper.archive.locked = wrong_key(sweeper.settings)
    await sweeper.store_whole(stuck, b"precious")
    await sweeper.workflows.parts_stored(stuck, PartsStored(2, 8, final=True, begun=True))
    await sweeper.until_phase(stuck, "stuck")
    await sweeper.until_seen(job_id, stuck)
    before = [await sweeper.events(job) for job in (job_id, stuck)]
    assert await sweeper.sweep() == SweepResult(found=2, running=2, pages=1)
    assert [await sweeper.events(job) for job in (job_id, stuck)] == before
    await sweeper.until_phase(stuck, "stuck")


async def test_a_workflow_that_is_not_listed_yet_is_not_signalled(sweeper, job_id):
    """Temporal's lists lag: starting the workflow shows that one is running."""
    await sweeper.store(part(job_id, 0, b"running"))
    await sweeper.workflows.parts_stored(job_id, PartsStored(1, 7, begun=True))
    await sweeper.until_phase(job_id, "receiving")
    before = await sweeper.events(job_id)
    sweeper.activities._workflows = WatchedWorkflows(**vars(sweeper.workflows), seen=set())
    assert await sweeper.sweep() == SweepResult(found=1, running=1, pages=1)
    assert await sweeper.events(job_id) == before


async def test_parts_stored_while_the_workflow_closes_are_found_by_the_next_round(sweeper, job_id):
    await sweeper.store_whole(job_id, b"early ")
    await sweeper.sweep()
    await sweeper.finish(job_id)
    await sweeper.store(part(job_id, 2, b"late"))
    sweeper.activities._workflows = WatchedWorkflows(**vars(sweeper.workflows), seen={job_id})
    assert (await sweeper.sweep()).running == 1
    sweeper.activities._workflows = sweeper.workflows
    assert (await sweeper.sweep()).started == 1
    await sweeper.finish(job_id)
    assert sweeper.archived(job_id) == b"early late"


async def test_removed_text_without_a_signal_is_deleted_from_the_archive(sweeper, job_id):
    await sweeper.store_whole(job_id, b"with a secret")
    await sweeper.sweep()
    await sweeper.finish(job_id)
    await sweeper.replace(job_id, b"")
    assert await sweeper.sweep() == SweepResult(found=1, signalled=1, pages=1)
    await until(lambda: is_archived(sweeper, job_id, None))


async def test_what_an_upload_writes_after_the_removal_is_deleted(sweeper, job_id):
    await sweeper.store_whole(job_id, b"with a secret")
    await sweeper.sweep()
    await sweeper.finish(job_id)
    await sweeper.replace(job_id, b"")
    await sweeper.sweep()
    await until(lambda: waits_for_a_check(sweeper))
    store, bucket = s3(sweeper.settings), sweeper.settings.s3.bucket
    store.put_object(Bucket=bucket, Key=key(job_id), Body=b"with a secret")
    await sweeper.pool.execute("UPDATE logs SET archive_settles_at = now()")
    assert (await sweeper.sweep()).signalled == 1
    await until(lambda: is_archived(sweeper, job_id, None))


async def waits_for_a_check(sweeper: Sweeper) -> bool:
    due = "SELECT archive_settles_at IS NOT NULL AND NOT archive_outdated FROM logs"
    return bool(await sweeper.pool.fetchval(due))


@pytest.mark.parametrize("phase", ["verified", "stuck"])
async def test_a_workflow_that_missed_removed_text_is_signalled(sweeper, job_id, phase):
    options = replace(OPTIONS, purge_seconds=3600)
    sweeper.workflows = replace(sweeper.workflows, options=options)
    await sweeper.store_whole(job_id, b"with a secret")
    await sweeper.workflows.parts_stored(job_id, PartsStored(2, 13, final=True, begun=True))
    await sweeper.until_phase(job_id, "verified")
    if phase == "stuck":
        sweeper.archive.locked = wrong_key(sweeper.settings)
        await sweeper.workflows.archive_again(job_id)
        await sweeper.until_phase(job_id, "stuck")
        sweeper.archive.locked = None
    await sweeper.replace(job_id, b"removed")
    await sweeper.until_seen(job_id)
    assert (await sweeper.sweep()).signalled == 1
    await until(lambda: is_archived(sweeper, job_id, b"removed"))


async def is_archived(sweeper: Sweeper, job_id: int, content: bytes | None) -> bool:
    return sweeper.archived(job_id) == content


async def test_a_workflow_stuck_at_the_deletion_is_not_signalled_again(sweeper, job_id):
    await sweeper.store_whole(job_id, b"with a secret")
    await sweeper.sweep()
    await sweeper.finish(job_id)
    sweeper.archive.locked = wrong_key(sweeper.settings)
    await sweeper.replace(job_id, b"")
    await sweeper.workflows.content_replaced(job_id)
    await sweeper.until_phase(job_id, "stuck")
    await sweeper.until_seen(job_id)
    before = await sweeper.events(job_id)
    assert await sweeper.sweep() == SweepResult(found=1, running=1, pages=1)
    assert await sweeper.events(job_id) == before


async def test_logs_without_parts_are_marked_once_in_pages(sweeper, job_id):
    count = PAGE_LOGS + 5
    await sweeper.pool.execute(
        "INSERT INTO logs (job_id) SELECT generate_series($1::bigint, $2)",
        job_id * 1000,
        job_id * 1000 + count - 1,
    )
    assert await sweeper.sweep() == SweepResult(found=count, emptied=count, pages=2)
    sweeper.recorded = sweeper.sweeps[-1]
    assert await sweeper.sweep() == SweepResult(pages=1)


async def test_a_failing_log_does_not_delay_the_others(sweeper, job_id, numbers):
    other = next(numbers)
    await sweeper.store_whole(job_id, b"refused")
    await sweeper.store_whole(other, b"fine")
    sweeper.activities._workflows = WatchedWorkflows(**vars(sweeper.workflows), refused={job_id})
    assert await sweeper.sweep() == SweepResult(found=2, started=1, failed=1, pages=1)
    await sweeper.finish(other)
    sweeper.activities._workflows = sweeper.workflows
    await sweeper.sweep()
    await sweeper.finish(job_id)
    assert sweeper.archived(job_id) == b"refused"


async def test_each_round_continues_where_the_last_one_stopped(sweeper, job_id):
    """Logs that stay unfinished do not block those after them."""
    jobs = [job_id * 1000 + n for n in range(5)]
    await sweeper.store(*(part(job, 0, b"a") for job in jobs))
    for job in jobs:
        await sweeper.workflows.parts_stored(job, PartsStored(1, 1, begun=True))
    await sweeper.until_seen(*jobs)
    await asyncio.sleep(QUIET)
    day = timedelta(days=1)
    argument = SweepInput(QUIET, OPTIONS.purge_seconds, logs=2)
    queue = sweeper.settings.temporal.task_queue
    await apply(sweeper.client, queue, Recurring(sweeper.name, Sweep.run, argument, "", day, day))
    schedule = sweeper.client.get_schedule_handle(sweeper.name)
    rounds: list[SweepResult] = []
    for count in range(1, 5):
        await schedule.trigger()
        sweeper.recorded, result = await last_sweep(sweeper.client, schedule, count)
        rounds.append(result)
    await schedule.delete()
    assert [one.found for one in rounds] == [2, 2, 1, 2]
    assert rounds[0].after < rounds[1].after
    assert rounds[2].after == 0
    assert rounds[3].after == rounds[0].after
