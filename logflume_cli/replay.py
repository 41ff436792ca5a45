"""`logflume replay`: replays downloaded histories on the installed workflow code."""

import asyncio
import logging
import re
import sys
from pathlib import Path

import click
from temporalio.client import WorkflowHistory
from temporalio.runtime import Runtime, TelemetryConfig
from temporalio.worker import Replayer, UnsandboxedWorkflowRunner

from logflume_cli.output import json_option, print_json
from logflume_cli.terminal import echo
from workflows.all import WORKFLOWS

# The library reports a failure as Rust prints it; its first message says what differs.
MESSAGE = re.compile(r'message: "((?:[^"\\]|\\.)*)"')
DOWNLOAD = "`temporal workflow show --workflow-id ID --output json`"


class _Unreadable(Exception):
    """A file is not a complete history; the text says why."""


@click.command()
@click.argument(
    "files",
    metavar="FILE...",
    nargs=-1,
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
)
@json_option
def replay(files: tuple[Path, ...], *, as_json: bool) -> None:
    """Replay workflow histories on the installed code; does not need Temporal.

    Each FILE is a history from `temporal workflow show --workflow-id ID --output json` or
    downloaded from Temporal's web UI. Prints for each file whether this code behaves like the code
    that recorded it, and exits with 1 unless all do. Run it before a deployment, with histories of
    running workflows.
    """
    # Our output line contains what the library would log.
    logging.getLogger("temporalio").setLevel(logging.CRITICAL + 1)
    verdicts = asyncio.run(_replay(files, as_json=as_json))
    if as_json:
        print_json(verdicts)
    sys.exit(not all(verdict.startswith("same") for verdict in verdicts.values()))


async def _replay(files: tuple[Path, ...], *, as_json: bool) -> dict[str, str]:
    replayer = Replayer(
        workflows=WORKFLOWS,
        workflow_runner=UnsandboxedWorkflowRunner(),
        runtime=Runtime(telemetry=TelemetryConfig(logging=None)),
    )
    verdicts: dict[str, str] = {}
    for path in files:
        try:
            history = _read(path)
            verdict = await _compare(replayer, history)
        except _Unreadable as error:
            verdict = f"unreadable, {error}; download it with {DOWNLOAD}"
        verdicts[str(path)] = verdict
        if not as_json:
            echo(f"{path}: {verdict}")
    return verdicts


async def _compare(replayer: Replayer, history: WorkflowHistory) -> str:
    events = history.events
    name = events[0].workflow_execution_started_event_attributes.workflow_type.name
    known = [workflow.__name__ for workflow in WORKFLOWS]
    if name not in known:
        return f"unknown workflow type {name}, this code has {', '.join(known)}"
    if not any(event.HasField("workflow_task_scheduled_event_attributes") for event in events):
        return f"same, {name}, nothing was run yet"  # the library would wait forever
    result = await replayer.replay_workflow(history, raise_on_replay_failure=False)
    if result.replay_failure is None:
        return f"same, {name}, {len(events)} events"
    failure = str(result.replay_failure)
    message = MESSAGE.search(failure)
    return f"differs, {name}: {message[1] if message else failure}"


def _read(path: Path) -> WorkflowHistory:
    """Read a complete history: the library aborts the process at an incomplete one."""
    try:
        history = WorkflowHistory.from_json(path.name, path.read_text())
    except OSError as error:
        raise _Unreadable(str(error.strerror)) from error
    except Exception as error:  # of JSON, of protobuf, or of a text where an event should be
        raise _Unreadable("not the JSON of a history") from error
    ids = [event.event_id for event in history.events]
    if not ids or ids != [*range(1, len(ids) + 1)]:
        raise _Unreadable("its event ids are not 1, 2, 3 and so on")
    started = history.events[0].workflow_execution_started_event_attributes
    if not started.original_execution_run_id:
        raise _Unreadable("it does not begin with the start of a workflow")
    return history
