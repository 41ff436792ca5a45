"""The workflows of logs, from outside: signal, start, query and list them."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, NamedTuple

from temporalio.client import Client, WorkflowExecutionDescription, WorkflowExecutionStatus
from temporalio.common import SearchAttributePair, TypedSearchAttributes
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from activities.types import DELETE_ARCHIVE
from logflume.domain import Phase
from logflume.errors import ComponentError
from workflows.client.connection import temporal_errors
from workflows.lifecycle_types import (
    ARCHIVE_AGAIN,
    CONTENT_REPLACED,
    JOB_ID,
    LIFECYCLE,
    LIFECYCLE_QUERY,
    LOG_PHASE,
    PARTS_STORED,
    Lifecycle,
    LifecycleInput,
    LifecycleOptions,
    LifecycleState,
    PartsStored,
    job_of,
    workflow_id,
)
from workflows.policies import describe

ANSWER_SECONDS = 10.0


class Run(NamedTuple):
    """The latest run of a log's workflow; all fields are empty if Temporal does not know one.

    `state`: only the phase if no worker answers the query. Its `last_error` is that of an activity
    that is being retried, if there is one.
    """

    run_id: str | None = None
    state: Lifecycle | None = None
    is_running: bool = False


@dataclass(frozen=True)
class LogWorkflows:
    """Signals, starts and queries the workflows of logs; new ones get these `options`.

    `web_url`: base of the link to the log page in the details of a workflow; empty: no link.

    Every method raises ComponentError if Temporal is unreachable, refuses the request, or does not
    answer within `seconds` (None: no limit).
    """

    client: Client
    task_queue: str
    options: LifecycleOptions
    web_url: str = ""

    async def parts_stored(
        self, job_id: int, stored: PartsStored, seconds: float | None = None
    ) -> None:
        """Signal committed parts; starts a workflow if none is running."""
        await self._signal(job_id, PARTS_STORED, [stored], seconds)

    async def content_replaced(self, job_id: int, seconds: float | None = None) -> None:
        """Signal that content was written as a whole; starts a workflow if none is running."""
        await self._signal(job_id, CONTENT_REPLACED, [], seconds)

    async def archive_again(self, job_id: int, seconds: float | None = None) -> None:
        """Aggregate and archive a log again, or resume it if it is stuck."""
        await self._signal(job_id, ARCHIVE_AGAIN, [], seconds)

    async def recheck(self, job_id: int) -> None:
        """Make a running workflow aggregate its log again, even if it is stuck; starts none."""
        handle = self.client.get_workflow_handle(workflow_id(job_id))
        async with temporal_errors(self.client, ANSWER_SECONDS):
            try:
                await handle.signal(PARTS_STORED, PartsStored(0, 0, final=True))
            except RPCError as error:
                if error.status != RPCStatusCode.NOT_FOUND:
                    raise

    async def start(
        self, job_id: int, last_part_at: datetime, verified_at: datetime | None
    ) -> bool:
        """Start a workflow that aggregates at once; False if one is running, which is left alone.

        The idle timeout counts from `last_part_at`, the purge delay from `verified_at`.
        """
        state = LifecycleState(
            begun=True, ended=True, changed=True, last_signal_at=last_part_at.timestamp()
        )
        if verified_at:
            state.verified_at = verified_at.timestamp()
        async with temporal_errors(self.client):
            try:
                await self._start(LifecycleInput(job_id, self.options, state))
            except WorkflowAlreadyStartedError:
                return False
        return True

    async def ensure_replaced(self, job_id: int, *, running: bool) -> bool:
        """Signal replaced content again unless the running workflow is working on it.

        A workflow that waits has missed the signal, unless it is stuck at that very deletion.
        """
        if running:
            state = await self.state(job_id)
            failed_to_delete = state.last_error.startswith(f"{DELETE_ARCHIVE}:")
            if state.phase not in ("receiving", "verified", "stuck") or failed_to_delete:
                return False
        await self.content_replaced(job_id)
        return True

    async def ensure_ended(self, job_id: int) -> bool:
        """Signal the final part again if the running workflow still waits for it."""
        if (await self.state(job_id)).phase != "receiving":
            return False
        await self.recheck(job_id)
        return True

    async def state(self, job_id: int, seconds: float | None = ANSWER_SECONDS) -> Lifecycle:
        """Query a log's workflow; raises ComponentError if it does not exist."""
        handle = self.client.get_workflow_handle(workflow_id(job_id))
        async with temporal_errors(self.client, seconds):
            state: Lifecycle = await handle.query(LIFECYCLE_QUERY, result_type=Lifecycle)
        return state

    async def latest_run(self, job_id: int, seconds: float | None = ANSWER_SECONDS) -> Run:
        """Describe the latest run of a log's workflow; never raises ComponentError."""
        handle = self.client.get_workflow_handle(workflow_id(job_id))
        try:
            async with temporal_errors(self.client, seconds):
                run = await handle.describe()
        except ComponentError:
            return Run()
        try:
            state: Lifecycle | None = await self.state(job_id, seconds)
        except ComponentError:
            phase = run.typed_search_attributes.get(LOG_PHASE)
            state = Lifecycle(_phase(phase)) if phase else None
        if state and (error := await self._pending_error(run)):
            state = replace(state, last_error=error)
        return Run(run.run_id, state, run.status == WorkflowExecutionStatus.RUNNING)

    async def _pending_error(self, run: WorkflowExecutionDescription) -> str:
        """Why an activity is being retried; the workflow learns it only after the last try."""
        for pending in run.raw_description.pending_activities:
            if pending.HasField("last_failure"):
                failure = await self.client.data_converter.decode_failure(pending.last_failure)
                error = describe(pending.activity_type.name, failure)
                return f"{error} (failed {pending.attempt - 1} times, will be retried)"
        return ""

    async def phases(
        self, job_ids: Collection[int], seconds: float | None = ANSWER_SECONDS
    ) -> dict[int, Phase]:
        """The lasting phases of those logs that have a running workflow; some seconds old."""
        if not job_ids:
            return {}
        ids = ", ".join(f"'{workflow_id(job_id)}'" for job_id in job_ids)
        query = f"ExecutionStatus = 'Running' AND WorkflowId IN ({ids})"
        return await self._list_phases(query, len(job_ids), seconds)

    async def newest_in_phase(
        self, phase: Phase, count: int, seconds: float | None = ANSWER_SECONDS
    ) -> dict[int, Phase]:
        """The newest logs in one phase, by job id."""
        return await self._list_phases(f"{LOG_PHASE.name} = '{phase}'", count, seconds)

    async def count_stuck(self) -> int:
        """Count the logs whose workflow is in phase `stuck`."""
        query = f"ExecutionStatus = 'Running' AND {LOG_PHASE.name} = 'stuck'"
        async with temporal_errors(self.client):
            return (await self.client.count_workflows(query)).count

    async def last_sweep_seconds(self) -> float:
        """The time since a sweep last completed; infinite if none has."""
        query = "WorkflowType = 'Sweep' AND ExecutionStatus = 'Completed'"
        async with temporal_errors(self.client):
            async for run in self.client.list_workflows(query, limit=1):  # the latest first
                if run.close_time:
                    return max(0.0, (datetime.now(UTC) - run.close_time).total_seconds())
        return math.inf

    async def _list_phases(self, query: str, limit: int, seconds: float | None) -> dict[int, Phase]:
        phases: dict[int, Phase] = {}
        async with temporal_errors(self.client, seconds):
            async for run in self.client.list_workflows(query, limit=limit):
                job_id = job_of(run.id)
                if job_id is not None:
                    phases[job_id] = _phase(run.typed_search_attributes.get(LOG_PHASE, "receiving"))
        return phases

    async def _signal(
        self, job_id: int, signal: str, arguments: Sequence[Any], seconds: float | None
    ) -> None:
        async with temporal_errors(self.client, seconds):
            await self._start(
                LifecycleInput(job_id, self.options),
                start_signal=signal,
                start_signal_args=arguments,
            )

    async def _start(self, argument: LifecycleInput, **options: Any) -> None:
        job_id = argument.job_id
        await self.client.start_workflow(
            LIFECYCLE,
            argument,
            id=workflow_id(job_id),
            task_queue=self.task_queue,
            static_summary=f"log of job {job_id}",
            static_details=f"[Log page]({self.web_url}/jobs/{job_id})" if self.web_url else None,
            search_attributes=TypedSearchAttributes(
                [SearchAttributePair(JOB_ID, job_id), SearchAttributePair(LOG_PHASE, "receiving")]
            ),
            **options,
        )


def _phase(value: str) -> Phase:
    return value  # type: ignore[return-value]  # only the workflow sets it
