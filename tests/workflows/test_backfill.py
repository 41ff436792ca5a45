"""Backfills on a real Temporal server: effects on logs, reports, pausing and limits."""

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from temporalio import activity
from temporalio.client import WorkflowExecutionStatus, WorkflowFailureError, WorkflowHandle

import activities.backfill
from activities.backfill import BackfillActivities
from activities.logs import ArchiveActivities, DatabaseActivities
from activities.sweep import SweepActivities
from activities.types import BACKFILL_PAGE, BackfillPage, BackfillPageInput, Failure
from logflume.archive.store import key
from logflume.domain import MAX_JOB_ID
from logflume.errors import ComponentError
from logflume_cli.backfill import backfill
from tests.support.histories import record
from tests.support.options import backfill_input
from tests.support.parts import part
from tests.support.s3 import s3
from tests.support.sweeper import OPTIONS, LockedArchive, Sweeper, wrong_key
from tests.support.waiting import until
from tests.support.workers import lifecycle_workers
from workflows.backfill import (
    MAX_FAILURES,
    PAGE_RANGES,
    Backfill,
    BackfillProgress,
    job_ranges,
)
from workflows.client.logs import LogWorkflows
from workflows.lifecycle_types import PartsStored

BIN = Path(sys.executable).parent
Handle = WorkflowHandle[Any, BackfillProgress]


class WatchedBackfills(BackfillActivities):
    """The real activities; records their results."""

    pages: list[BackfillPage]

    @activity.defn(name=BACKFILL_PAGE)
    async def backfill_page(self, argument: BackfillPageInput) -> BackfillPage:
        self.pages.append(await super().backfill_page(argument))
        return self.pages[-1]


@dataclass
class Filler(Sweeper):
    """Brings logs into a state that needs a backfill, and runs it."""

    backfills: WatchedBackfills = field(kw_only=True)
    last: Handle | None = None

    async def start(self, signal: str | None = None, **options: Any) -> Handle:
        self.last = await self.client.start_workflow(
            Backfill.run,
            backfill_input(**options),
            id=f"{self.name}-backfill",
            task_queue=self.settings.temporal.task_queue,
            start_signal=signal,
        )
        return self.last

    async def fill(self, **options: Any) -> BackfillProgress:
        return await (await self.start(**options)).result()

    async def finished(self, job_id: int, content: bytes) -> None:
        """A log that is done."""
        await self.store_whole(job_id, content)
        await self.signal(job_id)
        await self.finish(job_id)

    async def signal(self, job_id: int, *, final: bool = True) -> None:
        await self.workflows.parts_stored(job_id, PartsStored(2, 9, final=final, begun=True))

    async def stuck(self, job_id: int, content: bytes) -> None:
        """A log that the archive refuses."""
        self.archive.locked = wrong_key(self.settings)
        await self.store_whole(job_id, content)
        await self.signal(job_id)
        await self.until_phase(job_id, "stuck")
        await self.until_listed_as(job_id, "stuck")

    def refuse_for_long(self) -> None:
        """Let the archive refuse, and logs retry for long."""
        self.archive.locked = wrong_key(self.settings)
        options = replace(OPTIONS, archive_tries=9, archive_backoff_seconds=3600)
        self.workflows = self.backfills._workflows = replace(self.workflows, options=options)

    async def until_listed_as(self, job_id: int, phase: str) -> None:
        async def met() -> bool:
            return await self.workflows.phases([job_id]) == {job_id: phase}

        await until(met)

    def lose(self, job_id: int) -> None:
        s3(self.settings).delete_object(Bucket=self.settings.s3.bucket, Key=key(job_id))


@pytest.fixture
async def filler(request, client, pool, settings, name) -> AsyncIterator[Filler]:
    """A filler, with a worker that serves both queues."""
    task_queue = settings.temporal.task_queue
    workflows = LogWorkflows(client, task_queue, OPTIONS)
    store = LockedArchive(settings.s3, 4)
    database, archive = DatabaseActivities(pool), ArchiveActivities(pool, store)
    backfills = WatchedBackfills(pool, workflows)
    backfills.pages = []
    sweep = SweepActivities(pool, workflows)
    async with lifecycle_workers(
        client, task_queue, database, archive, Backfill, [backfills.backfill_page]
    ):
        one = Filler(client, pool, settings, workflows, sweep, store, name, backfills=backfills)
        yield one
        if request.config.getoption("--record-histories") and one.last:
            await record(one.last, f"backfill_{request.node.name.removeprefix('test_')}")


async def test_logs_of_a_range_are_archived_again_after_the_store_lost_them(filler, job_id):
    jobs = range(job_id * 1000, job_id * 1000 + 3)
    await asyncio.gather(*(filler.finished(job, b"%d" % job) for job in jobs))
    for job in jobs:
        filler.lose(job)
    progress = await filler.fill(jobs=[f"{jobs[0]}-{jobs[-1] + 100}"])
    assert progress == BackfillProgress(found=3, done=3)
    for job in jobs:
        assert filler.archived(job) == b"%d" % job
        await filler.finish(job)  # purged again too


async def test_logs_that_cannot_be_archived_again_are_reported_and_left_alone(
    filler, job_id, numbers
):
    """The archive may hold the only copy, which must not be touched."""
    unknown = next(numbers)
    await filler.finished(job_id, b"only copy")
    await filler.pool.execute("DELETE FROM log_parts")
    before = await filler.events(job_id)
    progress = await filler.fill(jobs=[job_id, unknown])
    gone = "its parts were dropped: only the archive has the log"
    assert progress == BackfillProgress(
        found=2,
        failed=2,
        failures=[Failure(unknown, "no log has this job id"), Failure(job_id, gone)],
    )
    assert filler.archived(job_id) == b"only copy"
    assert await filler.events(job_id) == before
    assert await filler.pool.fetchval("SELECT purged_at IS NOT NULL AND archive_verified FROM logs")


async def test_all_failures_are_counted_and_the_first_hundred_listed(filler, job_id):
    unknown = [job_id * 1000 + n for n in range(PAGE_RANGES + 50)]
    progress = await filler.fill(jobs=unknown)
    assert (progress.found, progress.failed) == (len(unknown), len(unknown))
    assert [one.job_id for one in progress.failures] == unknown[:MAX_FAILURES]


async def test_orphaned_and_stuck_logs_are_re_driven_and_others_left(filler, job_id):
    stuck, lost, open_, running, empty = (job_id * 1000 + n for n in range(5))
    await filler.stuck(stuck, b"was stuck")
    filler.archive.locked = None
    await filler.store_whole(lost, b"was lost")
    await filler.store(part(open_, 0, b"goes on"), part(running, 0, b"runs"))
    await filler.signal(running, final=False)
    await filler.until_phase(running, "receiving")
    await filler.until_listed_as(running, "receiving")
    await filler.pool.execute("INSERT INTO logs (job_id) VALUES ($1)", empty)
    before = await filler.events(running)
    progress = await filler.fill(kind="not_verified")
    assert progress == BackfillProgress(found=5, done=2, left=2, empty=1)
    assert filler.archived(stuck) == b"was stuck"
    assert filler.archived(lost) == b"was lost"
    await filler.until_phase(open_, "receiving")
    assert await filler.events(running) == before


async def test_a_log_that_is_stuck_again_is_reported_with_the_reason(filler, job_id):
    await filler.stuck(job_id, b"refused")
    progress = await filler.fill(kind="not_archived")
    assert (progress.found, progress.done) == (0, 0)  # an upload was started
    progress = await filler.fill(kind="not_verified")
    [failure] = progress.failures
    assert (progress.found, progress.failed, failure.job_id) == (1, 1, job_id)
    assert failure.reason.startswith("stuck: archive: ")


async def test_an_overdue_log_is_reported_with_its_phase(filler, job_id):
    filler.refuse_for_long()
    await filler.store_whole(job_id, b"refused")
    await filler.signal(job_id)

    async def refused() -> bool:
        return (await filler.workflows.state(job_id)).last_error != ""

    await until(refused)
    progress = await filler.fill(jobs=[job_id], limit_seconds=1)
    [failure] = progress.failures
    assert re.match(r"(settling|aggregating|archiving) after 1 s: archive: ", failure.reason)


async def test_a_backfill_is_bounded_pauses_and_continues_as_new(filler, job_id, monkeypatch):
    monkeypatch.setattr(activities.backfill, "PAGE_SECONDS", 0)  # a poll and a few logs each
    jobs = [job_id * 1000 + n for n in range(5)]
    for job in jobs:
        await filler.store_whole(job, b"%d" % job)
    handle = await filler.start("pause", kind="not_purged", concurrency=2, pages=2)
    progress = await handle.query(Backfill.progress)
    assert progress == BackfillProgress(paused=True)
    assert filler.backfills.pages == []
    await handle.signal(Backfill.resume)
    assert await handle.result() == BackfillProgress(found=5, done=5)
    pages = filler.backfills.pages
    assert max(len(page.pending) for page in pages) == 2
    assert max(page.found for page in pages) == 2
    first = filler.client.get_workflow_handle(handle.id, run_id=handle.first_execution_run_id)
    filler.last = first
    assert (await first.describe()).status == WorkflowExecutionStatus.CONTINUED_AS_NEW


@dataclass(frozen=True)
class FailingOnce(LogWorkflows):
    """The real workflows, which fail once, at the second log."""

    started: list[int] = field(default_factory=list)

    async def start(self, job_id: int, *times: Any) -> bool:
        self.started.append(job_id)
        if len(self.started) == 2:
            raise RuntimeError("just now")
        return await super().start(job_id, *times)


async def test_a_failed_page_resumes_and_counts_nothing_twice(filler, job_id):
    jobs = [job_id * 1000 + n for n in range(3)]
    for job in jobs:
        await filler.store_whole(job, b"x")
    failing = FailingOnce(**vars(filler.workflows))
    filler.backfills._workflows = failing
    progress = await filler.fill(kind="not_archived", rate=1)
    assert progress == BackfillProgress(found=3, done=3)
    assert failing.started == [jobs[0], jobs[1], jobs[1], jobs[2]]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "either job ids or a kind"),
        ({"jobs": [1], "kind": "not_purged"}, "either job ids or a kind"),
        ({"kind": "not_there"}, "not_archived, not_verified, not_purged"),
        ({"jobs": ["9-1"]}, "'9-1'"),
        ({"jobs": ["1", "x"]}, "'x'"),
        ({"jobs": [-1]}, "-1"),
        ({"jobs": [MAX_JOB_ID + 1]}, "not a range"),
        ({"jobs": [1], "concurrency": 0}, "concurrency must be .*, not 0"),
        ({"jobs": [1], "rate": 501}, "rate must be .*, not 501"),
        ({"jobs": [1], "limit_seconds": 0}, "limit must be above 0"),
        ({"jobs": list(range(10_001))}, "exceed the maximum of 10000"),
    ],
)
def test_an_invalid_input_is_refused_in_one_line(given, words):
    with pytest.raises(ValueError, match=words):
        job_ranges(backfill_input(**given))


def test_ranges_are_sorted_and_merged():
    options = backfill_input(jobs=["8-9", 3, "1-5", "4-6", 7, 7, MAX_JOB_ID])
    assert job_ranges(options) == [(1, 6), (7, 7), (8, 9), (MAX_JOB_ID, MAX_JOB_ID)]


async def test_an_invalid_input_fails_at_once(filler):
    with pytest.raises(WorkflowFailureError) as failed:
        await filler.fill(kind="nonsense")
    assert "unknown kind 'nonsense'" in str(failed.value.cause)


async def test_the_command_starts_pauses_resumes_and_cancels_a_backfill(
    filler, job_id, monkeypatch, tmp_path
):
    """Also when it was started with Temporal's command."""
    queue = filler.settings.temporal.task_queue
    monkeypatch.setattr(activities.backfill, "PAGE_SECONDS", 1)
    monkeypatch.setenv("LOGFLUME_TEMPORAL__TASK_QUEUE", queue)
    handle = filler.client.get_workflow_handle("backfill", result_type=BackfillProgress)

    async def run(*arguments: str) -> str:
        done = await asyncio.to_thread(CliRunner().invoke, backfill, arguments)
        if isinstance(done.exception, ComponentError):
            return f"error: {done.exception}"
        return (done.stdout or done.stderr).strip()

    assert (
        await run("status")
        == "error: no backfill is running: start one with `logflume backfill start`"
    )
    await filler.finished(job_id, b"archived")
    filler.lose(job_id)
    await asyncio.to_thread(
        subprocess.run,
        [
            *(BIN / "temporal", "workflow", "start", "--address", filler.settings.temporal.address),
            *("--type", "Backfill", "--workflow-id", "backfill", "--task-queue", queue),
            *("--input", json.dumps(asdict(backfill_input(jobs=[job_id, "1-2"])))),
        ],
        env={"HOME": str(tmp_path)},
        capture_output=True,
        timeout=60,
        check=True,
    )
    await handle.result()
    progress = "1 logs found, 1 done, 0 failed, 0 left to their workflow, 0 empty, 0 under way"
    assert await run("status") == f"completed: {progress}"
    assert filler.archived(job_id) == b"archived"

    filler.refuse_for_long()
    assert "neither a job id" in await run("start", "x")
    assert (await run("start", str(job_id), "5", "--limit", "1h")).startswith("started")
    assert (await run("start", "--kind", "not_purged")).startswith(
        "error: a backfill is already running"
    )
    assert await run("pause") == "paused"
    assert "paused: " in await run("status")
    assert await run("resume") == "resumed"

    async def is_reported() -> bool:
        return "job 5: no log has this job id" in await run("status")

    await until(is_reported)
    assert await run("cancel") == "cancelled"
    with pytest.raises(WorkflowFailureError):
        await handle.result()
    assert "canceled: " in await run("status")
    assert (
        await run("pause")
        == "error: no backfill is running: start one with `logflume backfill start`"
    )
