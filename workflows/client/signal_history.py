"""Reads the signals in Temporal's histories, which may hold more than a restored database."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

from temporalio.api.enums.v1 import EventType
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import Client, WorkflowExecution, WorkflowExecutionStatus

from workflows.client.connection import temporal_errors
from workflows.lifecycle_types import (
    CONTENT_REPLACED,
    LIFECYCLE,
    PARTS_STORED,
    PartsStored,
    job_of,
    workflow_id,
)

SIGNALED = EventType.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED


@dataclass
class SignalledLog:
    """The signals that a log's workflow received since a time, in all its runs.

    `batches`: time and number of parts, since content was last written as a whole, at
    `replaced_at`. `done`: the newest run has completed.
    """

    job_id: int
    done: bool
    batches: list[tuple[datetime, int]] = field(default_factory=list)
    replaced_at: datetime | None = None

    def parts_after(self, moment: datetime) -> int:
        """How many parts were signalled after a moment."""
        return sum(parts for at, parts in self.batches if at > moment)


class SignalHistory:
    """Signals since a time, of the workflows that were running after it.

    Every method raises ComponentError if Temporal is unreachable or refuses.
    """

    def __init__(self, client: Client, since: datetime) -> None:
        self.since = since
        self._client = client
        running = f"(ExecutionStatus = 'Running' OR CloseTime > '{since.isoformat()}')"
        self._running = f"WorkflowType = '{LIFECYCLE}' AND {running}"

    async def of_all(self) -> AsyncIterator[SignalledLog]:
        """Yield each log whose workflow was running."""
        async with temporal_errors(self._client):
            async for run in self._client.list_workflows(self._running):
                job_id = job_of(run.id)
                runs = [] if job_id is None else await self._runs(job_id)
                # Once per log: at its newest run.
                if job_id is not None and runs and runs[-1].run_id == run.run_id:
                    yield await self._read(job_id, runs)

    async def of(self, job_id: int) -> SignalledLog | None:
        """Read one log's signals; None if its workflow was not running."""
        async with temporal_errors(self._client):
            runs = await self._runs(job_id)
            return await self._read(job_id, runs) if runs else None

    async def _runs(self, job_id: int) -> list[WorkflowExecution]:
        query = f"WorkflowId = '{workflow_id(job_id)}' AND {self._running}"
        runs = [run async for run in self._client.list_workflows(query)]
        return sorted(runs, key=lambda run: run.start_time)

    async def _read(self, job_id: int, runs: list[WorkflowExecution]) -> SignalledLog:
        log = SignalledLog(job_id, done=runs[-1].status == WorkflowExecutionStatus.COMPLETED)
        for run in runs:
            handle = self._client.get_workflow_handle(run.id, run_id=run.run_id)
            async for event in handle.fetch_history_events():
                await self._add(log, event)
        return log

    async def _add(self, log: SignalledLog, event: HistoryEvent) -> None:
        at = event.event_time.ToDatetime(UTC)
        if event.event_type != SIGNALED or at <= self.since:
            return
        signal = event.workflow_execution_signaled_event_attributes
        if signal.signal_name == CONTENT_REPLACED:
            log.batches.clear()
            log.replaced_at = at
        elif signal.signal_name == PARTS_STORED:
            payloads = signal.input.payloads
            [stored] = await self._client.data_converter.decode(payloads, [PartsStored])
            log.batches.append((at, stored.parts))
