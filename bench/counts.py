"""Counts a log's billable Temporal actions."""

from collections import Counter

from temporalio.api.enums.v1 import EventType
from temporalio.client import Client, WorkflowHistory

from workflows.lifecycle_types import workflow_id

# What Temporal bills: https://docs.temporal.io/evaluate/cloud/actions. Heartbeats and queries,
# which leave no event, come on top; a log of this size has none.
ACTIONS = {
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED: "signals, the start among them",
    EventType.EVENT_TYPE_TIMER_STARTED: "timers",
    EventType.EVENT_TYPE_ACTIVITY_TASK_STARTED: "activities",
    EventType.EVENT_TYPE_MARKER_RECORDED: "workflow tasks with local activities",
    EventType.EVENT_TYPE_UPSERT_WORKFLOW_SEARCH_ATTRIBUTES: "search attributes",
}


async def actions(client: Client, jobs: range) -> Counter[str]:
    """Temporal's billable actions over the histories of all logs, by kind."""
    counted: Counter[str] = Counter()
    for job_id in jobs:
        counted += billed(await client.get_workflow_handle(workflow_id(job_id)).fetch_history())
    return counted


def billed(history: WorkflowHistory) -> Counter[str]:
    """The actions of one history. A signal that starts the workflow is one action, not two."""
    counted: Counter[str] = Counter()
    tasks = set()
    for event in history.events:
        kind = ACTIONS.get(EventType.ValueType(event.event_type))
        if event.event_type == EventType.EVENT_TYPE_MARKER_RECORDED:
            # All local activities of one workflow task are one action.
            task = event.marker_recorded_event_attributes.workflow_task_completed_event_id
            if task in tasks:
                continue
            tasks.add(task)
        if event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_STARTED and kind:
            counted[kind] += event.activity_task_started_event_attributes.attempt
        elif kind:
            counted[kind] += 1
    return counted


def each(counts: Counter[str], logs: int) -> str:
    """The counts per log of each kind."""
    return ", ".join(f"{kind} {count / logs:.2f}" for kind, count in counts.most_common())
