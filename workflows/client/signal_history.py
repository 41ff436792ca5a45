"""What the workflows of logs heard since a time: Temporal remembers what the database lost."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

from temporalio.api.enums.v1 import EventType
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import Client, WorkflowExecution, WorkflowExecutionStatus

from workflows.types import CONTENT_REPLACED, LIFECYCLE, PARTS_STORED, Batch, job_of, workflow_id

SIGNALED = EventType.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED


@dataclass
class Told:
    """What the workflow of a job's log heard, in all its runs since a time.

    `batches`: when it was told of how many parts, since it was last told that content was written
    whole, at `replaced_at`. `done`: its newest run came to its end.
    """

    job_id: int
    done: bool
    batches: list[tuple[datetime, int]] = field(default_factory=list)
    replaced_at: datetime | None = None

    def parts_after(self, moment: datetime) -> int:
        """How many parts it was told of after a moment."""
        return sum(parts for at, parts in self.batches if at > moment)


class Memory:
    """What Temporal remembers of the workflows that were alive after a time.

    Every method raises RPCError or RuntimeError where Temporal is out of reach or refuses.
    """

    def __init__(self, client: Client, since: datetime) -> None:
        self.since = since
        self._client = client
        alive = f"(ExecutionStatus = 'Running' OR CloseTime > '{since.isoformat()}')"
        self._alive = f"WorkflowType = '{LIFECYCLE}' AND {alive}"

    async def of_all(self) -> AsyncIterator[Told]:
        """Tell of each log whose workflow was alive."""
        async for one in self._client.list_workflows(self._alive):
            job_id = job_of(one.id)
            runs = [] if job_id is None else await self._runs(job_id)
            if job_id is not None and runs and runs[-1].run_id == one.run_id:  # the newest for all
                yield await self._told(job_id, runs)

    async def of(self, job_id: int) -> Told | None:
        """Tell of one log; None where its workflow was not alive."""
        runs = await self._runs(job_id)
        return await self._told(job_id, runs) if runs else None

    async def _runs(self, job_id: int) -> list[WorkflowExecution]:
        query = f"WorkflowId = '{workflow_id(job_id)}' AND {self._alive}"
        found = [run async for run in self._client.list_workflows(query)]
        return sorted(found, key=lambda run: run.start_time)

    async def _told(self, job_id: int, runs: list[WorkflowExecution]) -> Told:
        told = Told(job_id, done=runs[-1].status == WorkflowExecutionStatus.COMPLETED)
        for run in runs:
            handle = self._client.get_workflow_handle(run.id, run_id=run.run_id)
            async for event in handle.fetch_history_events():
                await self._hear(told, event)
        return told

    async def _hear(self, told: Told, event: HistoryEvent) -> None:
        at = event.event_time.ToDatetime(UTC)
        if event.event_type != SIGNALED or at <= self.since:
            return
        signal = event.workflow_execution_signaled_event_attributes
        if signal.signal_name == CONTENT_REPLACED:
            told.batches.clear()
            told.replaced_at = at
        elif signal.signal_name == PARTS_STORED:
            payloads = signal.input.payloads
            [batch] = await self._client.data_converter.decode(payloads, [Batch])
            told.batches.append((at, batch.parts))
