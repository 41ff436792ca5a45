"""What the workflow of a log says of it, beside the row."""

from datetime import timedelta
from typing import NamedTuple

from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.service import RPCError

from domain import Log
from web.models import LifecycleBody
from workflows.types import LIFECYCLE_QUERY, LOG_PHASE, Lifecycle, workflow_id

# A page that waits for a workflow nobody serves helps no one: the row alone tells most of it.
ASK_SECONDS = timedelta(seconds=2)


class Told(NamedTuple):
    """What Temporal knows of a log: its run, and the workflow's own state where it answered."""

    run_id: str | None = None
    state: Lifecycle | None = None
    is_running: bool = False


async def ask(client: Client, job_id: int) -> Told:
    """Ask the workflow of a job's log; one that is gone, or nobody serves, tells less."""
    handle = client.get_workflow_handle(workflow_id(job_id))
    try:
        about = await handle.describe(rpc_timeout=ASK_SECONDS)
    except (RPCError, RuntimeError):
        return Told()
    is_running = about.status == WorkflowExecutionStatus.RUNNING
    try:
        state = await handle.query(LIFECYCLE_QUERY, result_type=Lifecycle, rpc_timeout=ASK_SECONDS)
    except RPCError:
        phase = about.typed_search_attributes.get(LOG_PHASE)
        state = Lifecycle(phase, 0, 0, 0, 0, "", 0, "") if phase else None  # type: ignore[arg-type]
    return Told(about.run_id, state, is_running)


def lifecycle_body(log: Log, told: Told, ui_url: str, namespace: str) -> LifecycleBody:
    """Put the row and the workflow's state together; the workflow knows better while it runs."""
    name = workflow_id(log.job_id)
    state = told.state
    live = state if told.is_running else None
    link = f"{ui_url}/namespaces/{namespace}/workflows/{name}/{told.run_id or ''}"
    return LifecycleBody(
        id=log.id,
        job_id=log.job_id,
        phase=live.phase if live else log.phase,
        parts=live.parts if live and log.part_count is None else log.part_count,
        bytes=live.bytes if live and log.content_bytes is None else log.content_bytes,
        missing_parts=log.missing_parts,
        stale_parts=state.stale_parts if state else 0,
        attempt=state.attempt if state else "",
        archive_attempts=state.archive_attempts if state else 0,
        last_error=state.last_error if state else "",
        created_at=log.created_at,
        updated_at=log.updated_at,
        aggregated_at=log.aggregated_at,
        archived_at=log.archived_at,
        archive_verified=log.archive_verified,
        purged_at=log.purged_at,
        removed_at=log.removed_at,
        workflow_id=name,
        run_id=told.run_id,
        temporal_ui_url=link if ui_url else None,
    )
