"""The lifecycle of one log: receive, aggregate, archive, verify, purge.

Signals are hints that something changed; the state of the log is read from the database each time.
So a signal may be lost, duplicated or late without harm: the next aggregation finds the same
content.
"""

from collections.abc import Callable
from typing import Any

from temporalio import workflow
from temporalio.exceptions import ActivityError, FailureError, is_cancelled_exception

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
        archive_queue,
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
    from workflows.policies import (
        ARCHIVE_RETRIES,
        ARCHIVE_TIME,
        DATABASE_TIME,
        HEARTBEAT,
        LOCAL_BYTES,
        LOCAL_ONCE,
        LOCAL_TIME,
        RETRIES,
        reason,
    )

MAX_BACKOFF_SECONDS = 3600.0
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
            await self._wait_stuck(self._state.last_error)
        while True:
            try:
                outcome = await self._run_phases()
            except ActivityError as error:
                if is_cancelled_exception(error):
                    raise
                await self._wait_stuck(reason(error))
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
            while content.missing_parts and await self._fills_gaps(content):
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
            await self._run_in_archive(RESTORE, self._job_id, None)
            content = await self._run_in_database(AGGREGATE, argument, Content)
        # A signal that arrived meanwhile may be newer than the snapshot of the activity.
        state.ended = state.ended or content.ended
        state.parts, state.bytes, state.attempt = content.parts, content.bytes, content.attempt
        state.missing_parts, state.stale_parts = content.missing_parts, content.stale_parts
        state.left_out_bytes = content.left_out_bytes
        self._set_settling(content.settles_seconds)
        if content.archive_outdated:
            await self._run_in_archive(DELETE_ARCHIVE, self._job_id, None)
        return content

    async def _fills_gaps(self, content: Content) -> bool:
        """Wait for missing parts, once per log; True if any arrived."""
        if not content.sha256 or self._state.gap_grace_over:
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
                await self._wait_stuck(verdict.reason)
                return False
            state.last_error = verdict.reason
            backoff = self._options.archive_backoff_seconds * 2 ** (state.tries - 1)
            await self._wait(
                lambda: state.changed,
                min(backoff, MAX_BACKOFF_SECONDS),
                "backoff before archiving again",
            )
        return False

    async def _try_archive(self, argument: ArchiveInput) -> Verdict:
        try:
            self._enter("archiving")
            if not await self._run_in_archive(ARCHIVE, argument, bool):
                return Verdict(ok=False, replaced=True)
            self._enter("verifying")
            verdict: Verdict = await self._run_in_archive(VERIFY, argument, Verdict)
        except ActivityError as error:
            if is_cancelled_exception(error):
                raise
            return Verdict(ok=False, reason=reason(error))
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
        if self._settles_at is not None:
            is_intact: bool = await self._run_in_archive(CHECK_ARCHIVE, argument, bool)
            if not is_intact:
                return False
        purged: bool = await self._run_in_database(PURGE, argument, bool)
        return purged

    def _set_settling(self, seconds: float | None) -> None:
        self._settles_at = None if seconds is None else self._now() + seconds

    async def _run_in_database(self, activity: str, argument: Any, result_type: type) -> Any:
        """Run a database activity.

        First as a local activity, which saves five history events and a round trip through the
        server. For a large log, or if that fails, as a normal activity, which the server retries.
        """
        if self._state.bytes <= LOCAL_BYTES:
            try:
                return await workflow.execute_local_activity(
                    activity,
                    argument,
                    result_type=result_type,
                    start_to_close_timeout=LOCAL_TIME,
                    retry_policy=LOCAL_ONCE,
                )
            except FailureError as error:  # a local activity's cause is not in an ActivityError
                if is_cancelled_exception(error):
                    raise
        self._show_phase()
        return await workflow.execute_activity(
            activity,
            argument,
            result_type=result_type,
            start_to_close_timeout=DATABASE_TIME,
            heartbeat_timeout=HEARTBEAT,
            retry_policy=RETRIES,
        )

    async def _run_in_archive(self, activity: str, argument: Any, result_type: type | None) -> Any:
        return await workflow.execute_activity(
            activity,
            argument,
            result_type=result_type,
            task_queue=archive_queue(workflow.info().task_queue),
            start_to_close_timeout=ARCHIVE_TIME,
            heartbeat_timeout=HEARTBEAT,
            retry_policy=ARCHIVE_RETRIES,
        )

    async def _wait_stuck(self, why: str) -> None:
        """Wait in phase `stuck` until a signal arrives."""
        state = self._state
        state.last_error, state.tries = why, 0
        self._enter("stuck")
        workflow.logger.warning("log is stuck: %s", why)
        await self._wait(lambda: state.changed, None, "")
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
        details = f"**{phase}**: {state.parts} parts, {state.bytes} bytes"
        if state.missing_parts:
            details += f", {state.missing_parts} parts missing"
        if state.left_out_bytes:
            details += f", {state.left_out_bytes} bytes cut off: the log is too long"
        if state.last_error:
            details += f"\n\nArchive attempt {state.archive_attempts}: {state.last_error}"
        workflow.set_current_details(details)

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
        state = self._state
        return Lifecycle(
            phase=state.phase,
            parts=state.parts,
            bytes=state.bytes,
            missing_parts=state.missing_parts,
            stale_parts=state.stale_parts,
            attempt=state.attempt,
            archive_attempts=state.archive_attempts,
            last_error=state.last_error,
        )
