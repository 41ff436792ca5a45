"""The state of logs in API responses: the row combined with the state of the workflow."""

from collections.abc import Mapping, Sequence

from logflume.domain import Attempt, Log, Phase
from logflume.settings.servers import TemporalSettings
from web.models import LifecycleBody, ListBody, ListedLog, attempt_bodies
from workflows.client.logs import Run
from workflows.lifecycle_types import workflow_id

# Responses must not wait long for Temporal: the row alone is nearly enough.
ASK_SECONDS = 2.0
SIGNAL_SECONDS = 5.0


def list_body(logs: Sequence[Log], phases: Mapping[int, Phase], *, limit: int | None) -> ListBody:
    """Combine rows with phases; a full page (of `limit`) may be followed by another."""
    listed = [
        ListedLog(
            id=log.id,
            job_id=log.job_id,
            phase=phases.get(log.job_id, log.phase),
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
    log: Log, attempts: list[Attempt], run: Run, settings: TemporalSettings
) -> LifecycleBody:
    """Combine the row with the workflow's state, which is newer while the workflow runs."""
    name = workflow_id(log.job_id)
    state = run.state
    live = state if run.is_running else None
    workflows = f"{settings.ui_url}/namespaces/{settings.namespace}/workflows"
    link = f"{workflows}/{name}/{run.run_id or ''}"
    return LifecycleBody(
        id=log.id,
        job_id=log.job_id,
        phase=live.phase if live else log.phase,
        parts=live.parts if live and log.part_count is None else log.part_count,
        bytes=live.bytes if live and log.content_bytes is None else log.content_bytes,
        missing_parts=log.missing_parts,
        complete=log.complete,
        left_out_bytes=log.left_out_bytes,
        stale_parts=sum(attempt.stale_parts for attempt in attempts),
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
        run_id=run.run_id,
        temporal_ui_url=link if settings.ui_url else None,
        attempts=attempt_bodies(attempts),
    )
