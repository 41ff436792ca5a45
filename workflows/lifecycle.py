"""The lifecycle of one log: receive, aggregate, archive, verify, purge.

Signals are hints that something changed; the state of the log is read from the database each time.
So a signal may be lost, duplicated or late without harm: the next aggregation finds the same
content.
"""

from collections.abc import Callable
from typing import Any

from temporalio import workflow
from temporalio.exceptions import ActivityError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from activities.types import (
        AGGREGATE,
        ARCHIVE,
        CHECK_ARCHIVE,
        DELETE_ARCHIVE,
        PURGE,
        RESTORE,
        VERIFY,
        AggregateInput,
        ArchiveInput,
        Verdict,
    )
    from logflume.domain import Content, Phase
    from workflows.lifecycle_types import (
        ARCHIVE_AGAIN,
        CONTENT_REPLACED,
        LIFECYCLE,
        LIFECYCLE_QUERY,
        LOG_PHASE,
        PARTS_STORED,
        Lifecycle,
        LifecycleInput,
        LifecycleState,
        Outcome,
        PartsStored,
    )
    from workflows.policies import LOCAL_BYTES, is_final, reason
    from workflows.running import (
        LocalActivityFailed,
        run_in_archive,
        run_in_database,
        run_locally,
    )

MAX_BACKOFF_SECONDS = 3600.0
# How often a log is tried again that is stuck because the store refuses.
STUCK_RETRY_SECONDS = 3600.0
# The other phases last an instant unless something fails; only then they become visible too.
LASTING_PHASES = ("receiving", "archiving", "verified", "stuck", "done")


@workflow.defn(name=LIFECYCLE)
class LogLifecycle:
    """The workflow of one log. Parts that arrive after a run has closed start a new run."""

    @workflow.init
    def __init__(self, start: LifecycleInput) -> None:
        """Start with the state that a previous run carried over, if any."""
        self._job_id = start.job_id
        self._options = start.options
        self._state = start.state or LifecycleState()
        # When no earlier request can change the archived object; None if no check of it is due.
        self._settles_at: float | None = None

    @workflow.run
    async def run(self, _: LifecycleInput) -> Outcome:
        """Run the lifecycle until the log is done; after a failure it waits in phase `stuck`."""
        self._state.last_signal_at = self._state.last_signal_at or self._now()
        if self._state.phase == "stuck":
            await self._wait_stuck(self._state.last_error, retry=self._state.retries_stuck)
        while True:
            try:
                outcome = await self._run_phases()
            except ActivityError as error:
                if is_cancelled_exception(error):
                    raise
                await self._wait_stuck(reason(error), retry=not is_final(error))
                continue
            await workflow.wait_condition(workflow.all_handlers_finished)
            if outcome and not self._state.changed:
                self._enter("done")
                return outcome

    async def _run_phases(self) -> Outcome | None:
        """Go through all phases once; None if new parts or new content need another round."""
        content = await self._make_content()
        if content.parts and not content.purged:
            if not content.archived and not await self._make_archive(content):
                return None
            if not await self._purge(content):
                return None
        return Outcome(
            content.sha256,
            content.bytes,
            content.parts,
            content.missing_parts,
            self._state.archive_attempts,
        )

    async def _make_content(self) -> Content:
        """Wait until the log has ended, then aggregate it."""
        while True:
            ended = await self._receive()
            if ended:
                await self._settle()
            content = await self._aggregate(force=not ended)
            while await self._fills_gaps(content):
                content = await self._aggregate(force=not ended)
            if content.sha256 or not (ended or self._state.changed):
                return content

    async def _receive(self) -> bool:
        """Wait for the final part; False if the idle timeout expired first."""
        while not self._state.ended:
            self._enter("receiving")
            # Each signal extends the timeout; the timer is restarted when it fires, not per signal.
            idle_at = self._state.last_signal_at + self._options.idle_timeout_seconds
            seconds = idle_at - self._now()
            if seconds <= 0:
                return False
            await self._wait(lambda: self._state.ended, seconds, "idle timeout")
        return True

    async def _settle(self) -> None:
        self._enter("settling")
        await self._wait(lambda: self._state.replaced, self._options.settle_seconds, "settle time")

    async def _aggregate(self, *, force: bool) -> Content:
        state = self._state
        self._enter("aggregating")
        limit = self._options.max_log_bytes
        argument = AggregateInput(
            self._job_id, force=force, restore=state.reaggregate, max_bytes=limit
        )
        state.reaggregate = state.changed = state.ended = state.replaced = False
        content: Content = await self._run_in_database(AGGREGATE, argument, Content)
        while content.needs_archived:
            if await self._persist(RESTORE, self._job_id, argument) is None:
                return await self._aggregate(force=force)
            content = await self._run_in_database(AGGREGATE, argument, Content)
        # A signal that arrived meanwhile may be newer than the snapshot of the activity.
        state.ended = state.ended or content.ended
        state.parts, state.bytes, state.attempt = content.parts, content.bytes, content.attempt
        state.missing_parts, state.stale_parts = content.missing_parts, content.stale_parts
        state.left_out_bytes = content.left_out_bytes
        self._set_settling(content.settles_seconds)
        if (
            content.archive_outdated
            and await self._persist(DELETE_ARCHIVE, self._job_id, argument) is None
        ):
            return await self._aggregate(force=force)
        return content

    async def _fills_gaps(self, content: Content) -> bool:
        """Wait for missing parts, once per log; True if any arrived."""
        differs = content.complete is False and not content.left_out_bytes
        if not (content.missing_parts or differs) or self._state.gap_grace_over:
            return False
        if not content.sha256:
            return False
        self._enter("settling")
        arrived = await self._wait(
            lambda: self._state.changed,
            self._options.gap_seconds,
            f"gap grace period: {content.missing_parts} parts missing",
        )
        self._state.gap_grace_over = not arrived
        return arrived

    async def _make_archive(self, content: Content) -> bool:
        """Archive until verification succeeds; False if the content changed or the log is stuck."""
        state = self._state
        argument = ArchiveInput(self._job_id, content.sha256, content.bytes, content.parts)
        while not state.changed:
            state.tries += 1
            state.archive_attempts += 1
            verdict = await self._try_archive(argument)
            if verdict.replaced:
                return False
            if verdict.ok:
                state.tries, state.last_error, state.verified_at = 0, "", self._now()
                self._set_settling(verdict.settles_seconds)
                return True
            if state.tries >= self._options.archive_tries:
                await self._wait_stuck(verdict.reason, retry=verdict.refused)
                return False
            state.last_error = verdict.reason
            await self._back_off("archiving")
        return False

    async def _try_archive(self, argument: ArchiveInput) -> Verdict:
        try:
            self._enter("archiving")
            if not await run_in_archive(ARCHIVE, argument, bool):
                return Verdict(ok=False, replaced=True)
            self._enter("verifying")
            verdict: Verdict = await run_in_archive(VERIFY, argument, Verdict)
        except ActivityError as error:
            if is_cancelled_exception(error):
                raise
            return Verdict(ok=False, refused=not is_final(error), reason=reason(error))
        return verdict

    async def _purge(self, content: Content) -> bool:
        """Clear the row's copy after the purge delay; False if the log changed first."""
        self._enter("verified")
        purge_at = (self._state.verified_at or self._now()) + self._options.purge_seconds
        purge_at = max(purge_at, self._settles_at or 0)
        if await self._wait(lambda: self._state.changed, purge_at - self._now(), "purge delay"):
            return False
        self._enter("purging")
        argument = ArchiveInput(self._job_id, content.sha256, content.bytes, content.parts)
        if self._settles_at is not None and not await self._persist(
            CHECK_ARCHIVE, argument, result_type=bool
        ):
            return False
        purged: bool = await self._run_in_database(PURGE, argument, bool)
        return purged

    async def _persist(
        self,
        activity: str,
        argument: Any,
        aggregation: AggregateInput | None = None,
        result_type: type | None = None,
    ) -> Any:
        """Run an archive activity, with the backoff of uploads between tries.

        Returns its result, True if it has none; None if a signal arrived first. `aggregation`:
        aggregate as it says if this run continues as new.
        """
        state, failed = self._state, False
        while True:
            try:
                result = await run_in_archive(activity, argument, result_type)
            except ActivityError as error:
                if is_cancelled_exception(error) or is_final(error):
                    raise
                failed = True
                state.tries += 1
                if state.tries >= self._options.archive_tries:
                    raise
                state.last_error = reason(error)
            else:
                if failed:
                    state.tries, state.last_error = 0, ""
                    state.reaggregate = state.reaggregate and state.changed
                return True if result is None else result
            self._enter(state.phase)
            state.ended = True
            state.reaggregate |= aggregation is not None and aggregation.restore
            if await self._back_off(activity):
                return None

    async def _back_off(self, what: str) -> bool:
        """Wait before the next try, with jitter; True if a signal arrived first."""
        state = self._state
        seconds = self._options.archive_backoff_seconds * 2 ** (state.tries - 1)
        seconds = min(seconds, MAX_BACKOFF_SECONDS) * workflow.random().uniform(0.5, 1.0)
        return await self._wait(lambda: state.changed, seconds, f"backoff before {what} again")

    def _set_settling(self, seconds: float | None) -> None:
        self._settles_at = None if seconds is None else self._now() + seconds

    async def _run_in_database(self, activity: str, argument: Any, result_type: type) -> Any:
        """Run a database activity: for a large log, or if that fails locally, a normal one."""
        if self._state.bytes <= LOCAL_BYTES:
            try:
                return await run_locally(activity, argument, result_type)
            except LocalActivityFailed:
                pass
        self._show_phase()
        return await run_in_database(activity, argument, result_type)

    async def _wait_stuck(self, why: str, *, retry: bool) -> None:
        """Wait in phase `stuck` until a signal arrives; with `retry`, for an hour at most."""
        state = self._state
        state.last_error, state.tries, state.retries_stuck = why, 0, retry
        self._enter("stuck")
        workflow.logger.warning("log is stuck: %s", why)
        seconds = STUCK_RETRY_SECONDS * workflow.random().uniform(0.5, 1.0) if retry else None
        await self._wait(lambda: state.changed, seconds, "retry of a stuck log")
        state.ended = True  # aggregate again, whichever signal it was

    async def _wait(self, met: Callable[[], bool], seconds: float | None, why: str) -> bool:
        """Wait until `met`, at most `seconds`; returns whether it was met.

        The only place that continues as new: no activity is running here.
        """
        if met():
            return True
        if seconds is not None and seconds <= 0:
            return False
        try:
            await workflow.wait_condition(
                lambda: met() or self._is_long(), timeout=seconds, timeout_summary=why
            )
        except TimeoutError:
            return met()
        if not met():
            await workflow.wait_condition(workflow.all_handlers_finished)
            workflow.continue_as_new(LifecycleInput(self._job_id, self._options, self._state))
        return True

    def _is_long(self) -> bool:
        info = workflow.info()
        return (
            info.get_current_history_length() >= self._options.history_events
            or info.is_continue_as_new_suggested()
        )

    def _enter(self, phase: Phase) -> None:
        state = self._state
        state.phase = phase
        if phase in LASTING_PHASES:
            self._show_phase()
        workflow.set_current_details(state.summary)

    def _show_phase(self) -> None:
        """Make the phase searchable. This costs a history event, so only lasting phases do it."""
        phase = self._state.phase
        if workflow.info().typed_search_attributes.get(LOG_PHASE) != phase:
            workflow.upsert_search_attributes([LOG_PHASE.value_set(phase)])

    def _now(self) -> float:
        return workflow.now().timestamp()

    @workflow.signal(name=PARTS_STORED)
    def parts_stored(self, stored: PartsStored) -> None:
        """Record that a drain committed parts.

        A run that did not see its log begin (parts arrived after an earlier run had closed) may
        have a log that ended long ago, so it aggregates at once.
        """
        state = self._state
        state.parts += stored.parts
        state.bytes += stored.bytes
        state.last_signal_at = self._now()
        state.changed = True
        state.ended = state.ended or stored.final or not (stored.begun or state.begun)
        state.begun = True

    @workflow.signal(name=CONTENT_REPLACED)
    def content_replaced(self) -> None:
        """Record that content was written as a whole: aggregate at once, replace the archive."""
        state = self._state
        state.replaced = state.changed = state.ended = state.begun = True
        state.gap_grace_over = False
        state.last_signal_at = self._now()

    @workflow.signal(name=ARCHIVE_AGAIN)
    def archive_again(self) -> None:
        """Aggregate and archive the log again from its parts; also resumes a stuck log."""
        state = self._state
        state.reaggregate = state.changed = state.ended = state.begun = True

    @workflow.query(name=LIFECYCLE_QUERY)
    def lifecycle(self) -> Lifecycle:
        """Return the current state."""
        return self._state.public
