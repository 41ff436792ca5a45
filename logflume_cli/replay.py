"""`logflume replay`: downloaded histories on the workflow code that is installed here."""

import asyncio
import logging
import re
import sys
from pathlib import Path

import click
from temporalio.client import WorkflowHistory
from temporalio.runtime import Runtime, TelemetryConfig
from temporalio.worker import Replayer, UnsandboxedWorkflowRunner

from workflows.all import WORKFLOWS

# The library tells of a failure as Rust prints it; the first message in there says what differs.
MESSAGE = re.compile(r'message: "((?:[^"\\]|\\.)*)"')
DOWNLOAD = "`temporal workflow show --workflow-id ID --output json`"


class _Unreadable(Exception):
    """A file holds no history; the text says why."""


@click.command()
@click.argument(
    "files",
    metavar="FILE...",
    nargs=-1,
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
)
def replay(files: tuple[Path, ...]) -> None:
    """Replay workflow histories on the code that is installed here; needs no Temporal.

    Each FILE is what `temporal workflow show --workflow-id ID --output json` or the UI's download
    gives. Tells of each whether this code does the same as the one that ran, and exits with 1 if
    any does not. Run it before a deployment, with histories of workflows that are under way.
    """
    # What the library logs of a failure is in our line of it.
    logging.getLogger("temporalio").setLevel(logging.CRITICAL + 1)
    sys.exit(asyncio.run(_replay(files)))


async def _replay(files: tuple[Path, ...]) -> bool:
    replayer = Replayer(
        workflows=WORKFLOWS,
        workflow_runner=UnsandboxedWorkflowRunner(),
        runtime=Runtime(telemetry=TelemetryConfig(logging=None)),
    )
    differs = False
    for path in files:
        try:
            history = _read(path)
            verdict = await _compare(replayer, history)
        except _Unreadable as error:
            verdict = f"unreadable, {error}; make it with {DOWNLOAD}"
        differs = differs or not verdict.startswith("same")
        click.echo(f"{path}: {verdict}")
    return differs


async def _compare(replayer: Replayer, history: WorkflowHistory) -> str:
    events = history.events
    name = events[0].workflow_execution_started_event_attributes.workflow_type.name
    known = [workflow.__name__ for workflow in WORKFLOWS]
    if name not in known:
        return f"unknown workflow type {name}, this code has {', '.join(known)}"
    if not any(event.HasField("workflow_task_scheduled_event_attributes") for event in events):
        return f"same, {name}, nothing was run yet"  # the library would wait for it for ever
    result = await replayer.replay_workflow(history, raise_on_replay_failure=False)
    if result.replay_failure is None:
        return f"same, {name}, {len(events)} events"
    said = str(result.replay_failure)
    found = MESSAGE.search(said)
    return f"differs, {name}: {found[1] if found else said}"


def _read(path: Path) -> WorkflowHistory:
    """Read a history that is whole: the library ends the process at one that is not."""
    try:
        history = WorkflowHistory.from_json(path.name, path.read_text())
    except OSError as error:
        raise _Unreadable(str(error.strerror)) from error
    except Exception as error:  # of JSON, of protobuf, or of a text where an event should be
        raise _Unreadable("not the JSON of a history") from error
    ids = [event.event_id for event in history.events]
    if not ids or ids != [*range(1, len(ids) + 1)]:
        raise _Unreadable("its events are not 1, 2, 3 and so on")
    started = history.events[0].workflow_execution_started_event_attributes
    if not started.original_execution_run_id:
        raise _Unreadable("it does not begin with the start of a workflow")
    return history
