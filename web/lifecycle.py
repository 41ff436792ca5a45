"""What the workflow of a log says of it, beside the row."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.service import RPCError

from logflume.domain import Attempt, Log, Phase
from logflume.errors import ComponentError
from logflume.settings.groups import TemporalSettings
from web.models import LifecycleBody, ListBody, ListedLog, attempt_bodies
from workflows.types import JOB_ID, LIFECYCLE_QUERY, LOG_PHASE, Lifecycle, workflow_id

# A page that waits for a workflow nobody serves helps no one: the row alone tells most of it.
ASK_SECONDS = 2.0


class Told(NamedTuple):
    """What Temporal knows of a log: its run, and the workflow's own state where it answered."""

    run_id: str | None = None
    state: Lifecycle | None = None
    is_running: bool = False


async def ask(client: Client, job_id: int) -> Told:
    """Ask the workflow of a job's log; one that is gone, or nobody serves, tells less."""
    handle = client.get_workflow_handle(workflow_id(job_id))
    try:
        async with asyncio.timeout(ASK_SECONDS):
            about = await handle.describe()
    except (RPCError, RuntimeError, TimeoutError):
        return Told()
    is_running = about.status == WorkflowExecutionStatus.RUNNING
    try:
        async with asyncio.timeout(ASK_SECONDS):
            state = await handle.query(LIFECYCLE_QUERY, result_type=Lifecycle)
    except (RPCError, TimeoutError):
        phase = about.typed_search_attributes.get(LOG_PHASE)
        state = Lifecycle(phase, 0, 0, 0, 0, "", 0, "") if phase else None  # type: ignore[arg-type]
    return Told(about.run_id, state, is_running)


async def phases_of(client: Client, job_ids: Sequence[int]) -> dict[int, Phase]:
    """The phases of those logs whose workflows run; empty where Temporal cannot be asked."""
    if not job_ids:
        return {}
    names = ", ".join(f"'{workflow_id(job_id)}'" for job_id in job_ids)
    query = f"WorkflowId IN ({names}) AND ExecutionStatus = 'Running'"
    try:
        return await _phases(client, query, len(job_ids))
    except (RPCError, RuntimeError, TimeoutError):
        return {}


async def with_phase(client: Client, phase: Phase, count: int) -> dict[int, Phase]:
    """The newest logs in one phase, by job.

    Raises:
        ComponentError: Temporal cannot be asked.
    """
    try:
        return await _phases(client, f"LogPhase = '{phase}'", count)
    except (RPCError, RuntimeError, TimeoutError) as error:
        raise ComponentError(f"Temporal: {error or 'does not answer'}") from error


async def _phases(client: Client, query: str, count: int) -> dict[int, Phase]:
    found: dict[int, Phase] = {}
    async with asyncio.timeout(ASK_SECONDS):
        async for run in client.list_workflows(query, limit=count):
            told = run.typed_search_attributes
            job_id, phase = told.get(JOB_ID), told.get(LOG_PHASE)
            if job_id is not None and phase is not None:
                found[job_id] = phase  # type: ignore[assignment]
    return found


def list_body(logs: Sequence[Log], told: Mapping[int, Phase], *, limit: int | None) -> ListBody:
    """Put rows and phases together; a full page (of `limit`) may be followed by another."""
    listed = [
        ListedLog(
            id=log.id,
            job_id=log.job_id,
            phase=told.get(log.job_id, log.phase),
            bytes=log.content_bytes,
            parts=log.part_count,
            created_at=log.created_at,
            updated_at=log.updated_at,
            removed_at=log.removed_at,
        )
        for log in logs
    ]
    return ListBody(logs=listed, next=logs[-1].id if logs and len(logs) == limit else None)


def lifecycle_body(
    log: Log, attempts: list[Attempt], told: Told, settings: TemporalSettings
) -> LifecycleBody:
    """Put the row and the workflow's state together; the workflow knows better while it runs."""
    name = workflow_id(log.job_id)
    state = told.state
    live = state if told.is_running else None
    workflows = f"{settings.ui_url}/namespaces/{settings.namespace}/workflows"
    link = f"{workflows}/{name}/{told.run_id or ''}"
    return LifecycleBody(
        id=log.id,
        job_id=log.job_id,
        phase=live.phase if live else log.phase,
        parts=live.parts if live and log.part_count is None else log.part_count,
        bytes=live.bytes if live and log.content_bytes is None else log.content_bytes,
        missing_parts=log.missing_parts,
        left_out_bytes=log.left_out_bytes,
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
        expired_at=log.expired_at,
        workflow_id=name,
        run_id=told.run_id,
        temporal_ui_url=link if settings.ui_url else None,
        attempts=attempt_bodies(attempts),
    )
