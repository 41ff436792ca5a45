"""A backfill: brings many logs to their ends again, at a pace, and tells which did not get there.

It takes logs of jobs by their ids, or unfinished ones of a kind. What it does to each log is left
to the log's own workflow; it sees that they do it.
"""

import re
from dataclasses import replace

from temporalio import workflow
from temporalio.exceptions import ApplicationError

with workflow.unsafe.imports_passed_through():
    from activities.types import BACKFILL_KINDS, BACKFILL_PAGE, BackfillOrder, BackfillPage
    from logflume.domain import MAX_JOB_ID
    from workflows.policies import HEARTBEAT, RETRIES, SWEEP_TIME
    from workflows.types import (
        BACKFILL,
        PAUSE,
        PROGRESS_QUERY,
        RESUME,
        BackfillInput,
        BackfillProgress,
        BackfillState,
    )

MAX_JOBS = 10_000
MAX_CONCURRENCY = 1000
MAX_RATE = 500
MAX_FAILURES = 100
# Of the ranges, a page is given the next ones, so that histories stay small.
PAGE_RANGES = 100


@workflow.defn(name=BACKFILL)
class Backfill:
    """One backfill."""

    @workflow.init
    def __init__(self, given: BackfillInput) -> None:
        """Take up the state a former run carried over, or begin."""
        self._given = given
        self._state = given.state or BackfillState()

    @workflow.run
    async def run(self, given: BackfillInput) -> BackfillProgress:
        """Work page by page until all logs are found and none is under way."""
        state = self._state
        if not given.state:
            try:
                state.ranges = job_ranges(given)
            except ValueError as error:
                raise ApplicationError(str(error), non_retryable=True) from error
        pages = 0
        while state.more or state.pending:
            if pages >= given.pages or workflow.info().is_continue_as_new_suggested():
                workflow.continue_as_new(replace(given, jobs=[], state=state))
            self._show("running")
            await workflow.wait_condition(lambda: not state.progress.paused)
            self._add(await self._work())
            pages += 1
        self._show("done")
        return state.progress

    async def _work(self) -> BackfillPage:
        given, state = self._given, self._state
        order = BackfillOrder(
            kind=given.kind,
            ranges=state.ranges[:PAGE_RANGES],
            after=state.after,
            more=state.more,
            pending=state.pending,
            concurrency=given.concurrency,
            rate=given.rate,
            limit_seconds=given.limit_seconds,
            quiet_seconds=given.quiet_seconds,
            purge_seconds=given.purge_seconds,
        )
        page: BackfillPage = await workflow.execute_activity(
            BACKFILL_PAGE,
            order,
            result_type=BackfillPage,
            start_to_close_timeout=SWEEP_TIME,
            heartbeat_timeout=HEARTBEAT,
            retry_policy=RETRIES,
        )
        return page

    def _add(self, page: BackfillPage) -> None:
        state, progress = self._state, self._state.progress
        state.after, state.pending = page.after, page.pending
        state.ranges = [one for one in state.ranges if one[1] > page.after]
        state.more = page.more or bool(state.ranges)
        progress.found += page.found
        progress.done += page.done
        progress.left += page.left
        progress.empty += page.empty
        progress.failed += page.failed
        progress.under_way = len(page.pending)
        room = MAX_FAILURES - len(progress.failures)
        progress.failures += page.failures[:room]

    def _show(self, doing: str) -> None:
        progress = self._state.progress
        lines = [f"**{'paused' if progress.paused else doing}**: {tell(progress)}"]
        lines += [f"- job {one.job_id}: {one.reason}" for one in progress.failures]
        workflow.set_current_details("\n".join(lines))

    @workflow.signal(name=PAUSE)
    def pause(self) -> None:
        """Begin no more pages; logs that were told go on."""
        self._state.progress.paused = True
        self._show("running")

    @workflow.signal(name=RESUME)
    def resume(self) -> None:
        """Go on."""
        self._state.progress.paused = False
        self._show("running")

    @workflow.query(name=PROGRESS_QUERY)
    def progress(self) -> BackfillProgress:
        """Tell how far it is."""
        return self._state.progress


def job_ranges(given: BackfillInput) -> list[tuple[int, int]]:
    """The ranges of job ids that a backfill is asked for, in order, none of them overlapping.

    Raises:
        ValueError: it cannot be done as asked; the text says why.
    """
    if bool(given.jobs) == bool(given.kind):
        raise ValueError("a backfill needs either jobs or a kind")
    if given.kind and given.kind not in BACKFILL_KINDS:
        raise ValueError(f"kind {given.kind!r} is none of {', '.join(BACKFILL_KINDS)}")
    _check_bounds(given)
    ranges: list[tuple[int, int]] = []
    for first, last in sorted(_range(job) for job in given.jobs):
        if ranges and first <= ranges[-1][1]:
            ranges[-1] = (ranges[-1][0], max(last, ranges[-1][1]))
        else:
            ranges.append((first, last))
    return ranges


def _check_bounds(given: BackfillInput) -> None:
    if not 1 <= given.concurrency <= MAX_CONCURRENCY:
        raise ValueError(f"concurrency {given.concurrency} is not from 1 to {MAX_CONCURRENCY}")
    if not 1 <= given.rate <= MAX_RATE:
        raise ValueError(f"rate {given.rate} is not from 1 to {MAX_RATE} logs a second")
    if given.limit_seconds <= 0:
        raise ValueError(f"limit {given.limit_seconds:g} s is not above 0")
    if len(given.jobs) > MAX_JOBS:
        raise ValueError(
            f"{len(given.jobs)} job ids and ranges are more than {MAX_JOBS}: use wider ranges, "
            "or one backfill after the other"
        )


def _range(job: int | str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d{1,19})(?:-(\d{1,19}))?", str(job), re.ASCII)
    if not found:
        raise ValueError(f"{job!r} is neither a job id such as 42 nor a range such as 1000-2000")
    first, last = int(found[1]), int(found[2] or found[1])
    if not first <= last <= MAX_JOB_ID:
        raise ValueError(f"{job!r} is not a range of job ids, from the lower to the higher")
    return first, last


def tell(progress: BackfillProgress) -> str:
    """How far a backfill is, in one line."""
    return (
        f"{progress.found} logs found, {progress.done} done, {progress.failed} failed, "
        f"{progress.left} left to their workflows, {progress.empty} empty, "
        f"{progress.under_way} under way"
    )
