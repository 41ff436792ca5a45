"""Reads the signals in Temporal's histories, which may hold more than a restored database."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime

from temporalio.api.enums.v1 import EventType
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import Client, WorkflowExecution

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
    """The signals that a log's workflow received, in all its runs that Temporal retains.

    `parts`: how many were stored since content was last written as a whole. `replaced_at`: when
    that was, if it was after the time in question. `begun`: an attempt has begun since.
    """

    job_id: int
    parts: int = 0
    replaced_at: datetime | None = None
    begun: bool = True


class SignalHistory:
    """Signals to the workflows that were running after a time.

    Every method raises ComponentError if Temporal is unreachable or refuses.
    """

    def __init__(self, client: Client, since: datetime) -> None:
        self.since = since
        self._client = client

    async def of_all(self) -> AsyncIterator[SignalledLog]:
        """Yield each log whose workflow was running."""
        async with temporal_errors(self._client):
            running = f"(ExecutionStatus = 'Running' OR CloseTime > '{self.since.isoformat()}')"
            query = f"WorkflowType = '{LIFECYCLE}' AND {running}"
            async for run in self._client.list_workflows(query):
                job_id = job_of(run.id)
                runs = [] if job_id is None else await self._runs(job_id)
                # Once per log: at its newest run.
                if job_id is not None and runs and runs[-1].run_id == run.run_id:
                    yield await self._read(job_id, runs)

    async def of(self, job_id: int) -> SignalledLog | None:
        """Read one log's signals; None if Temporal has no workflow of it."""
        async with temporal_errors(self._client):
            runs = await self._runs(job_id)
            return await self._read(job_id, runs) if runs else None

    async def _runs(self, job_id: int) -> list[WorkflowExecution]:
        query = f"WorkflowId = '{workflow_id(job_id)}' AND WorkflowType = '{LIFECYCLE}'"
        runs = [run async for run in self._client.list_workflows(query)]
        return sorted(runs, key=lambda run: run.start_time)

    async def _read(self, job_id: int, runs: list[WorkflowExecution]) -> SignalledLog:
        log = SignalledLog(job_id)
        for run in runs:
            handle = self._client.get_workflow_handle(run.id, run_id=run.run_id)
            async for event in handle.fetch_history_events():
                await self._add(log, event)
        return log

    async def _add(self, log: SignalledLog, event: HistoryEvent) -> None:
        if event.event_type != SIGNALED:
            return
        signal = event.workflow_execution_signaled_event_attributes
        if signal.signal_name == CONTENT_REPLACED:
            at = event.event_time.ToDatetime(UTC)
            log.parts, log.begun = 0, False
            log.replaced_at = at if at > self.since else None
        elif signal.signal_name == PARTS_STORED:
            payloads = signal.input.payloads
            [stored] = await self._client.data_converter.decode(payloads, [PartsStored])
            log.begun = log.begun or stored.begun
            if log.begun:  # otherwise these were replaced, and signalled late
                log.parts += stored.parts
