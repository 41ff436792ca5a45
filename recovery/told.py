"""What the workflows of logs heard since a time: Temporal remembers what the database lost."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

from temporalio.api.enums.v1 import EventType
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import Client, WorkflowExecution, WorkflowExecutionStatus

from workflows.types import CONTENT_REPLACED, LIFECYCLE, PARTS_STORED, Batch, job_of, workflow_id


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


async def alive_since(client: Client, since: datetime) -> AsyncIterator[Told]:
    """Tell of each log whose workflow was alive after a time, for as long as Temporal remembers.

    Raises:
        RPCError, RuntimeError: Temporal is out of reach or refuses.
    """
    alive = f"(ExecutionStatus = 'Running' OR CloseTime > '{since.isoformat()}')"
    async for one in client.list_workflows(f"WorkflowType = '{LIFECYCLE}' AND {alive}"):
        job_id = job_of(one.id)
        if job_id is None:
            continue
        query = f"WorkflowId = '{workflow_id(job_id)}' AND {alive}"
        runs = sorted(
            [run async for run in client.list_workflows(query)], key=lambda run: run.start_time
        )
        if runs and runs[-1].run_id == one.run_id:  # of several runs the newest speaks for all
            yield await _told(client, job_id, runs, since)


async def _told(
    client: Client, job_id: int, runs: list[WorkflowExecution], since: datetime
) -> Told:
    told = Told(job_id, done=runs[-1].status == WorkflowExecutionStatus.COMPLETED)
    for run in runs:
        handle = client.get_workflow_handle(run.id, run_id=run.run_id)
        async for event in handle.fetch_history_events():
            await _hear(client, told, event, since)
    return told


async def _hear(client: Client, told: Told, event: HistoryEvent, since: datetime) -> None:
    at = event.event_time.ToDatetime(UTC)
    if event.event_type != EventType.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED or at <= since:
        return
    signal = event.workflow_execution_signaled_event_attributes
    if signal.signal_name == CONTENT_REPLACED:
        told.batches.clear()
        told.replaced_at = at
    elif signal.signal_name == PARTS_STORED:
        [batch] = await client.data_converter.decode(signal.input.payloads, [Batch])
        told.batches.append((at, batch.parts))
