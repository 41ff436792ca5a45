"""A backfill: re-drives many logs through aggregation and archiving at a limited rate.

It selects logs by job id, or unfinished logs of one kind. Each log's own workflow does the work;
the backfill starts or signals it and follows the log.
"""

import re
from dataclasses import dataclass, field, replace

from temporalio import workflow
from temporalio.exceptions import ApplicationError

with workflow.unsafe.imports_passed_through():
    from activities.types import (
        BACKFILL_KINDS,
        BACKFILL_PAGE,
        BackfillPage,
        BackfillPageInput,
        Failure,
        Followed,
    )
    from logflume.domain import MAX_JOB_ID
    from workflows.policies import HEARTBEAT, RETRIES, SWEEP_TIME

# One at a time: its limits apply to the whole system.
BACKFILL_ID = "backfill"
MAX_JOBS = 10_000
MAX_CONCURRENCY = 1000
MAX_RATE = 500
MAX_FAILURES = 100
# A page gets only the next ranges, to keep histories small.
PAGE_RANGES = 100


@dataclass
class BackfillProgress:
    """Progress of a backfill in logs; at the end its result.

    The counts are those of `BackfillPage`; `under_way`: followed now. `failures` names the first
    of the failed logs.
    """

    found: int = 0
    done: int = 0
    left: int = 0
    empty: int = 0
    failed: int = 0
    under_way: int = 0
    paused: bool = False
    failures: list[Failure] = field(default_factory=list)

    def __str__(self) -> str:
        """One line for a person."""
        return (
            f"{self.found} logs found, {self.done} done, {self.failed} failed, "
            f"{self.left} left to their workflow, {self.empty} empty, {self.under_way} under way"
        )


@dataclass
class BackfillState:
    """State of a backfill; carried over when it continues as new.

    `ranges`: remaining job ids, first and last inclusive. `after`, `more` and `pending` are those
    of `BackfillPage`.
    """

    ranges: list[tuple[int, int]] = field(default_factory=list)
    after: int = -1
    more: bool = True
    pending: list[Followed] = field(default_factory=list)
    progress: BackfillProgress = field(default_factory=BackfillProgress)


@dataclass(frozen=True)
class BackfillInput:
    """Input of a backfill: `jobs`, ids such as 42 and ranges such as "1000-2000", or a `kind`.

    At most `concurrency` logs are under way and at most `rate` logs are started per second. A log
    that is not finished after `limit_seconds` counts as failed. `quiet_seconds` and
    `purge_seconds` are those of the sweep. `pages`: how many before it continues as new, with
    `state`.
    """

    concurrency: int
    rate: int
    limit_seconds: float
    quiet_seconds: float
    purge_seconds: float
    jobs: list[int | str] = field(default_factory=list)
    kind: str = ""
    pages: int = 200
    state: BackfillState | None = None


@workflow.defn
class Backfill:
    """The workflow of one backfill."""

    @workflow.init
    def __init__(self, options: BackfillInput) -> None:
        """Start with the state that a previous run carried over, if any."""
        self._options = options
        self._state = options.state or BackfillState()

    @workflow.run
    async def run(self, options: BackfillInput) -> BackfillProgress:
        """Process pages until all logs are found and none is under way."""
        state = self._state
        if not options.state:
            try:
                state.ranges = job_ranges(options)
            except ValueError as error:
                raise ApplicationError(str(error), non_retryable=True) from error
        pages = 0
        while state.more or state.pending:
            if pages >= options.pages or workflow.info().is_continue_as_new_suggested():
                workflow.continue_as_new(replace(options, jobs=[], state=state))
            self._show("running")
            await workflow.wait_condition(lambda: not state.progress.paused)
            self._add(await self._run_page())
            pages += 1
        self._show("done")
        return state.progress

    async def _run_page(self) -> BackfillPage:
        options, state = self._options, self._state
        argument = BackfillPageInput(
            kind=options.kind,
            ranges=state.ranges[:PAGE_RANGES],
            after=state.after,
            more=state.more,
            pending=state.pending,
            concurrency=options.concurrency,
            rate=options.rate,
            limit_seconds=options.limit_seconds,
            quiet_seconds=options.quiet_seconds,
            purge_seconds=options.purge_seconds,
        )
        page: BackfillPage = await workflow.execute_activity(
            BACKFILL_PAGE,
            argument,
            result_type=BackfillPage,
            start_to_close_timeout=SWEEP_TIME,
            heartbeat_timeout=HEARTBEAT,
            retry_policy=RETRIES,
        )
        return page

    def _add(self, page: BackfillPage) -> None:
        state, progress = self._state, self._state.progress
        state.after, state.pending = page.after, page.pending
        state.ranges = [pair for pair in state.ranges if pair[1] > page.after]
        state.more = page.more or bool(state.ranges)
        progress.found += page.found
        progress.done += page.done
        progress.left += page.left
        progress.empty += page.empty
        progress.failed += page.failed
        progress.under_way = len(page.pending)
        progress.failures += page.failures[: MAX_FAILURES - len(progress.failures)]

    def _show(self, doing: str) -> None:
        progress = self._state.progress
        lines = [f"**{'paused' if progress.paused else doing}**: {progress}"]
        lines += [f"- job {failed.job_id}: {failed.reason}" for failed in progress.failures]
        workflow.set_current_details("\n".join(lines))

    @workflow.signal
    def pause(self) -> None:
        """Start no more pages; logs under way continue."""
        self._state.progress.paused = True
        self._show("running")

    @workflow.signal
    def resume(self) -> None:
        """Continue after a pause."""
        self._state.progress.paused = False
        self._show("running")

    @workflow.query
    def progress(self) -> BackfillProgress:
        """Return the current progress."""
        return self._state.progress


def job_ranges(options: BackfillInput) -> list[tuple[int, int]]:
    """The requested ranges of job ids, sorted and without overlaps.

    Raises:
        ValueError: the input is invalid; the text says why.
    """
    if bool(options.jobs) == bool(options.kind):
        raise ValueError("a backfill needs either job ids or a kind")
    if options.kind and options.kind not in BACKFILL_KINDS:
        raise ValueError(f"unknown kind {options.kind!r}; use one of {', '.join(BACKFILL_KINDS)}")
    _check_bounds(options)
    ranges: list[tuple[int, int]] = []
    for first, last in sorted(_range(job) for job in options.jobs):
        if ranges and first <= ranges[-1][1]:
            ranges[-1] = (ranges[-1][0], max(last, ranges[-1][1]))
        else:
            ranges.append((first, last))
    return ranges


def _check_bounds(options: BackfillInput) -> None:
    if not 1 <= options.concurrency <= MAX_CONCURRENCY:
        raise ValueError(
            f"concurrency must be between 1 and {MAX_CONCURRENCY}, not {options.concurrency}"
        )
    if not 1 <= options.rate <= MAX_RATE:
        raise ValueError(f"rate must be between 1 and {MAX_RATE} logs a second, not {options.rate}")
    if options.limit_seconds <= 0:
        raise ValueError(f"limit must be above 0, not {options.limit_seconds:g} s")
    if len(options.jobs) > MAX_JOBS:
        raise ValueError(
            f"{len(options.jobs)} job ids and ranges exceed the maximum of {MAX_JOBS}: use wider "
            "ranges or several backfills in sequence"
        )


def _range(job: int | str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,19})(?:-(\d{1,19}))?", str(job), re.ASCII)
    if not match:
        raise ValueError(f"{job!r} is neither a job id such as 42 nor a range such as 1000-2000")
    first, last = int(match[1]), int(match[2] or match[1])
    if not first <= last <= MAX_JOB_ID:
        raise ValueError(f"{job!r} is not a range of job ids from lower to higher")
    return first, last
