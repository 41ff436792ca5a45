"""How everyone outside tells a log's workflow something: the run is started if there is none."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from temporalio.client import Client
from temporalio.common import SearchAttributePair, TypedSearchAttributes

from workflows.types import (
    JOB_ID,
    LIFECYCLE,
    LOG_PHASE,
    LifecycleInput,
    LifecycleOptions,
    workflow_id,
)


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
        await self.client.start_workflow(
            LIFECYCLE,
            LifecycleInput(job_id, self.options),
            id=workflow_id(job_id),
            task_queue=self.task_queue,
            start_signal=signal,
            start_signal_args=arguments,
            static_summary=f"log of job {job_id}",
            search_attributes=TypedSearchAttributes(
                [SearchAttributePair(JOB_ID, job_id), SearchAttributePair(LOG_PHASE, "receiving")]
            ),
            rpc_timeout=rpc_timeout,
        )
