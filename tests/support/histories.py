"""Workflow histories for the replay tests: one folder for each release, and `unreleased`."""

import json
import re
from pathlib import Path
from typing import Any

from temporalio.client import WorkflowHandle
from temporalio.service import RPCError

HISTORIES = Path(__file__).parents[1] / "replay" / "histories"
UNRELEASED = HISTORIES / "unreleased"


def recorded() -> list[Path]:
    """All recorded histories, of every release."""
    return sorted(HISTORIES.glob("*/*.json"))


async def record(handle: WorkflowHandle[Any, Any], test: str) -> None:
    """Save the history of a test's workflow; those of earlier releases are never overwritten."""
    try:
        history = await handle.fetch_history()
    except RPCError:  # the test runs other workflows
        return
    name = re.sub(r"\W+", "_", test.removeprefix("test_")).strip("_")
    text = json.dumps(anonymous(history.to_json_dict()), indent=1)
    UNRELEASED.mkdir(exist_ok=True)
    (UNRELEASED / f"{name}.json").write_text(text + "\n")


def anonymous(value: Any) -> Any:
    """A history without the names of the machine it was recorded on."""
    if isinstance(value, list):
        return [anonymous(item) for item in value]
    if isinstance(value, dict):
        left_out = ("identity", "stackTrace")
        return {name: anonymous(item) for name, item in value.items() if name not in left_out}
    if isinstance(value, str):  # a worker's own queue is named after its process and host
        return re.sub(r"^\d+@[\w.-]+", "worker@host", value)
    return value
