"""The life of one log, from its first part to the purge of a copy that the archive holds.

Signals only say that something changed; what a log is, is asked of the database each time. So
signals may be lost, doubled or late without harm: the next look finds the same content.
"""

from collections.abc import Callable
from typing import Any

from temporalio import workflow
from temporalio.exceptions import ActivityError, FailureError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from activities.types import (
        AGGREGATE,
        ARCHIVE,
        DELETE_ARCHIVE,
        PURGE,
        RESTORE,
        VERIFY,
        AggregateOrder,
        ArchiveOrder,
        Verdict,
        archive_queue,
    )
    from logflume.domain import Content, Phase
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
    from workflows.types import (
        ARCHIVE_AGAIN,
        CONTENT_REPLACED,
        LIFECYCLE,
        LIFECYCLE_QUERY,
        LOG_PHASE,
        PARTS_STORED,
        Batch,
        Lifecycle,
        LifecycleInput,
        LifecycleState,
        Outcome,
    )

MAX_BACKOFF_SECONDS = 3600.0
# The others are over in an instant when all is well; when it is not they are shown, too.
LASTING_PHASES = ("receiving", "archiving", "verified", "stuck", "done")


@workflow.defn(name=LIFECYCLE)
class LogLifecycle:
    """One log. A closed run is followed by a new one when parts come late."""

    @workflow.init
    def __init__(self, start: LifecycleInput) -> None:
        """Take up the state a former run carried over, or begin."""
        self._job_id = start.job_id
        self._options = start.options
        self._state = start.state or LifecycleState()

    @workflow.run
    async def run(self, _: LifecycleInput) -> Outcome:
        """Carry the log to its end; what cannot go on waits as `stuck` until it is told to."""
        self._state.heard_at = self._state.heard_at or self._now()
        if self._state.phase == "stuck":
            await self._wait_stuck(self._state.last_error)
        while True:
            try:
                outcome = await self._live()
            except ActivityError as error:
                if is_cancelled_exception(error):
                    raise
                await self._wait_stuck(reason(error))
                continue
            await workflow.wait_condition(workflow.all_handlers_finished)
            if outcome and not self._state.news:
                self._enter("done")
                return outcome

    async def _live(self) -> Outcome | None:
        """Go through all phases once; None where new parts or content call for another round."""
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
            while content.missing_parts and await self._gets_stragglers(content):
                content = await self._aggregate(force=not ended)
            if content.sha256 or not (ended or self._state.news):
                return content

    async def _receive(self) -> bool:
        """Wait for the final part; False where the log was silent for too long."""
        while not self._state.ended:
            self._enter("receiving")
            # Parts move the limit while the timer runs: it is set anew when it fires, not for each.
            patience = self._state.heard_at + self._options.silence_seconds - self._now()
            if patience <= 0:
                return False
            await self._wait(lambda: self._state.ended, patience, "silence")
        return True

    async def _settle(self) -> None:
        self._enter("settling")
        await self._wait(lambda: self._state.replaced, self._options.settle_seconds, "settle")

    async def _aggregate(self, *, force: bool) -> Content:
        state = self._state
        self._enter("aggregating")
        limit = self._options.max_log_bytes
        order = AggregateOrder(self._job_id, force=force, restore=state.again, max_bytes=limit)
        state.again = state.news = state.ended = state.replaced = False
        content: Content = await self._database_act(AGGREGATE, order, Content)
        while content.needs_archived:
            await self._archive_act(RESTORE, self._job_id, None)
            content = await self._database_act(AGGREGATE, order, Content)
        # Signals that came meanwhile may know more than the activity saw.
        state.ended = state.ended or content.ended
        state.parts, state.bytes, state.attempt = content.parts, content.bytes, content.attempt
        state.missing_parts, state.stale_parts = content.missing_parts, content.stale_parts
        state.left_out_bytes = content.left_out_bytes
        if content.archive_outdated:
            await self._archive_act(DELETE_ARCHIVE, self._job_id, None)
        return content

    async def _gets_stragglers(self, content: Content) -> bool:
        """Wait for parts to fill the gaps, once in a log's life; tells whether any came."""
        if not content.sha256 or self._state.gaps_waited:
            return False
        self._enter("settling")
        came = await self._wait(
            lambda: self._state.news,
            self._options.gap_seconds,
            f"{content.missing_parts} parts missing",
        )
        self._state.gaps_waited = not came
        return came

    async def _make_archive(self, content: Content) -> bool:
        """Archive until what is read back is right; False where the content was replaced."""
        state = self._state
        order = ArchiveOrder(self._job_id, content.sha256, content.bytes, content.parts)
        while not state.news:
            state.tries += 1
            state.archive_attempts += 1
            verdict = await self._try_archive(order)
            if verdict.replaced:
                return False
            if verdict.ok:
                state.tries, state.last_error, state.verified_at = 0, "", self._now()
                return True
            if state.tries >= self._options.archive_tries:
                await self._wait_stuck(verdict.reason)
                return False
            state.last_error = verdict.reason
            backoff = self._options.archive_backoff_seconds * 2 ** (state.tries - 1)
            await self._wait(
                lambda: state.news, min(backoff, MAX_BACKOFF_SECONDS), "before archiving again"
            )
        return False

    async def _try_archive(self, order: ArchiveOrder) -> Verdict:
        try:
            self._enter("archiving")
            if not await self._archive_act(ARCHIVE, order, bool):
                return Verdict(ok=False, replaced=True)
            self._enter("verifying")
            verdict: Verdict = await self._archive_act(VERIFY, order, Verdict)
        except ActivityError as error:
            if is_cancelled_exception(error):
                raise
            return Verdict(ok=False, reason=reason(error))
        return verdict

    async def _purge(self, content: Content) -> bool:
        """Clear the row's copy after the purge delay; False where something new came first."""
        self._enter("verified")
        purge_at = (self._state.verified_at or self._now()) + self._options.purge_seconds
        if await self._wait(lambda: self._state.news, purge_at - self._now(), "purge delay"):
            return False
        self._enter("purging")
        order = ArchiveOrder(self._job_id, content.sha256, content.bytes, content.parts)
        purged: bool = await self._database_act(PURGE, order, bool)
        return purged

    async def _database_act(self, activity: str, order: Any, result_type: type) -> Any:
        """Run one activity inside Postgres.

        Locally first, which takes five history events fewer and no way through the server; for a
        large log, or where that fails, by the server, which tries until it succeeds.
        """
        if self._state.bytes <= LOCAL_BYTES:
            try:
                return await workflow.execute_local_activity(
                    activity,
                    order,
                    result_type=result_type,
                    start_to_close_timeout=LOCAL_TIME,
                    retry_policy=LOCAL_ONCE,
                )
            except FailureError as error:  # the cause itself: only the server's are ActivityError
                if is_cancelled_exception(error):
                    raise
        self._show_phase()
        return await workflow.execute_activity(
            activity,
            order,
            result_type=result_type,
            start_to_close_timeout=DATABASE_TIME,
            heartbeat_timeout=HEARTBEAT,
            retry_policy=RETRIES,
        )

    async def _archive_act(self, activity: str, order: Any, result_type: type | None) -> Any:
        return await workflow.execute_activity(
            activity,
            order,
            result_type=result_type,
            task_queue=archive_queue(workflow.info().task_queue),
            start_to_close_timeout=ARCHIVE_TIME,
            heartbeat_timeout=HEARTBEAT,
            retry_policy=ARCHIVE_RETRIES,
        )

    async def _wait_stuck(self, why: str) -> None:
        """Stay visible until told to go on, or until parts or content come."""
        state = self._state
        state.last_error, state.tries = why, 0
        self._enter("stuck")
        workflow.logger.warning("log is stuck: %s", why)
        await self._wait(lambda: state.news, None, "")
        state.ended = True  # look again, whatever called us

    async def _wait(self, met: Callable[[], bool], seconds: float | None, why: str) -> bool:
        """Wait until `met`, at most `seconds`; tells whether it was.

        A history that grows long is left behind here, where nothing is under way.
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
        told = f"**{phase}**: {state.parts} parts, {state.bytes} bytes"
        if state.missing_parts:
            told += f", {state.missing_parts} parts missing"
        if state.left_out_bytes:
            told += f", {state.left_out_bytes} bytes left out: the log is too long"
        if state.last_error:
            told += f"\n\nArchive attempt {state.archive_attempts}: {state.last_error}"
        workflow.set_current_details(told)

    def _show_phase(self) -> None:
        """Let lists of workflows be asked for the phase: an event, so only for what lasts."""
        phase = self._state.phase
        if workflow.info().typed_search_attributes.get(LOG_PHASE) != phase:
            workflow.upsert_search_attributes([LOG_PHASE.value_set(phase)])

    def _now(self) -> float:
        return workflow.now().timestamp()

    @workflow.signal(name=PARTS_STORED)
    def parts_stored(self, batch: Batch) -> None:
        """Hear of parts that a drain committed.

        A run that did not hear its log begin (parts came after an earlier run had closed) may have
        one that ended long ago: it looks.
        """
        state = self._state
        state.parts += batch.parts
        state.bytes += batch.bytes
        state.heard_at = self._now()
        state.news = True
        state.ended = state.ended or batch.final or not (batch.begun or state.begun)
        state.begun = True

    @workflow.signal(name=CONTENT_REPLACED)
    def content_replaced(self) -> None:
        """Hear that content was written whole: nothing is waited for, what was archived must go."""
        state = self._state
        state.replaced = state.news = state.ended = state.begun = True
        state.gaps_waited = False
        state.heard_at = self._now()

    @workflow.signal(name=ARCHIVE_AGAIN)
    def archive_again(self) -> None:
        """Archive the log again from its parts; also frees a log that is stuck."""
        state = self._state
        state.again = state.news = state.ended = state.begun = True

    @workflow.query(name=LIFECYCLE_QUERY)
    def lifecycle(self) -> Lifecycle:
        """Tell where the log is in its life."""
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
