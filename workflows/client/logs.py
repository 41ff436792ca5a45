"""How everyone outside tells a log's workflow something: the run is started if there is none."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from temporalio.client import Client
from temporalio.common import SearchAttributePair, TypedSearchAttributes
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from activities.types import DELETE_ARCHIVE
from workflows.types import (
    ARCHIVE_AGAIN,
    CONTENT_REPLACED,
    JOB_ID,
    LIFECYCLE,
    LIFECYCLE_QUERY,
    LOG_PHASE,
    PARTS_STORED,
    Batch,
    Lifecycle,
    LifecycleInput,
    LifecycleOptions,
    LifecycleState,
    workflow_id,
)

ASK_SECONDS = timedelta(seconds=10)


@dataclass(frozen=True)
class LogWorkflows:
    """The workflows of all logs: where they run, and the times that new ones get."""

    client: Client
    task_queue: str
    options: LifecycleOptions

    async def signal(
        self,
        job_id: int,
        signal: str,
        arguments: Sequence[Any] = (),
        rpc_timeout: timedelta | None = None,
    ) -> None:
        """Signal the workflow of a job's log.

        Raises:
            RPCError, RuntimeError: Temporal is out of reach or refuses.
        """
        await self._start(
            LifecycleInput(job_id, self.options),
            start_signal=signal,
            start_signal_args=arguments,
            rpc_timeout=rpc_timeout,
        )

    async def archive_again(self, job_id: int, rpc_timeout: timedelta | None = None) -> None:
        """Have a log archived again, or go on where it is stuck.

        Raises:
            RPCError, RuntimeError: Temporal is out of reach or refuses.
        """
        await self.signal(job_id, ARCHIVE_AGAIN, rpc_timeout=rpc_timeout)

    async def look_again(self, job_id: int) -> None:
        """Have the workflow that runs, if one does, look at its log anew; also where it is stuck.

        Raises:
            RPCError, RuntimeError: Temporal is out of reach or refuses.
        """
        handle = self.client.get_workflow_handle(workflow_id(job_id))
        try:
            await handle.signal(PARTS_STORED, Batch(0, 0, final=True), rpc_timeout=ASK_SECONDS)
        except RPCError as error:
            if error.status != RPCStatusCode.NOT_FOUND:
                raise

    async def running(self, job_ids: Collection[int]) -> set[int]:
        """Which of these jobs' logs have a workflow that runs, as of some seconds ago.

        Raises:
            RPCError, RuntimeError: Temporal is out of reach or refuses.
        """
        return set(await self.phases(job_ids))

    async def phases(self, job_ids: Collection[int]) -> dict[int, str]:
        """The phases, of those that last, of the workflows that `running` tells.

        Raises:
            RPCError, RuntimeError: Temporal is out of reach or refuses.
        """
        if not job_ids:
            return {}
        jobs = {workflow_id(job_id): job_id for job_id in job_ids}
        ids = ", ".join(f"'{name}'" for name in jobs)
        query = f"ExecutionStatus = 'Running' AND WorkflowId IN ({ids})"
        return {
            jobs[one.id]: one.typed_search_attributes.get(LOG_PHASE, "")
            async for one in self.client.list_workflows(query)
        }

    async def ask(self, job_id: int) -> tuple[str, str]:
        """The phase a log's workflow is in just now, and its last error.

        Raises:
            RPCError, RuntimeError: Temporal is out of reach or refuses, or there is no workflow.
            WorkflowQueryFailedError: the workflow cannot be asked.
        """
        handle = self.client.get_workflow_handle(workflow_id(job_id))
        told = await handle.query(LIFECYCLE_QUERY, result_type=Lifecycle, rpc_timeout=ASK_SECONDS)
        return told.phase, told.last_error

    async def take_up(self, job_id: int, heard_at: datetime, verified_at: datetime | None) -> bool:
        """Start a workflow that looks at its log at once; False where one runs already.

        One that runs hears nothing of it. The limits count from `heard_at`, when the log's last
        part came, and `verified_at`, when the archive was last found to hold it.

        Raises:
            RPCError, RuntimeError: Temporal is out of reach or refuses.
        """
        state = LifecycleState(begun=True, ended=True, news=True, heard_at=heard_at.timestamp())
        if verified_at:
            state.verified_at = verified_at.timestamp()
        try:
            await self._start(LifecycleInput(job_id, self.options, state))
        except WorkflowAlreadyStartedError:
            return False
        return True

    async def tell_replaced(self, job_id: int, *, running: bool) -> bool:
        """Tell that content was written whole; False where the workflow that runs knows.

        One that waits was not told, else it would not: unless it is stuck at that very deletion.

        Raises:
            RPCError, RuntimeError: Temporal is out of reach or refuses.
            WorkflowQueryFailedError: the workflow cannot be asked.
        """
        if running:
            phase, last_error = await self.ask(job_id)
            is_stuck_at_it = last_error.startswith(f"{DELETE_ARCHIVE}:")
            if phase not in ("receiving", "verified", "stuck") or is_stuck_at_it:
                return False
        await self.signal(job_id, CONTENT_REPLACED)
        return True

    async def tell_ended(self, job_id: int) -> bool:
        """Tell that the final part is there; False where the workflow that runs waits for none.

        Raises:
            RPCError, RuntimeError: Temporal is out of reach or refuses.
            WorkflowQueryFailedError: the workflow cannot be asked.
        """
        phase, _ = await self.ask(job_id)
        if phase != "receiving":
            return False
        await self.look_again(job_id)
        return True

    async def _start(self, given: LifecycleInput, **more: Any) -> None:
        job_id = given.job_id
        await self.client.start_workflow(
            LIFECYCLE,
            given,
            id=workflow_id(job_id),
            task_queue=self.task_queue,
            static_summary=f"log of job {job_id}",
            search_attributes=TypedSearchAttributes(
                [SearchAttributePair(JOB_ID, job_id), SearchAttributePair(LOG_PHASE, "receiving")]
            ),
            **more,
        )
