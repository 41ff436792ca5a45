"""Records workflow histories for the replay tests."""

import json
import re
from pathlib import Path
from typing import Any

from temporalio.client import (
    WorkflowHandle,
)

HISTORIES = Path(__file__).parents[1] / "replay" / "histories"


async def record(handle: WorkflowHandle[Any, Any], test: str) -> None:
    """Keep the history of a test's workflow for the replay tests."""
    history = await handle.fetch_history()
    name = re.sub(r"\W+", "_", test).strip("_").removeprefix("test_")
    text = json.dumps(anonymous(history.to_json_dict()), indent=1)
    (HISTORIES / f"{name}.json").write_text(text + "\n")


def anonymous(value: Any) -> Any:
    """A history without what names the machine it was recorded on."""
    if isinstance(value, list):
        return [anonymous(item) for item in value]
    if isinstance(value, dict):
        left_out = ("identity", "stackTrace")
        return {name: anonymous(item) for name, item in value.items() if name not in left_out}
    if isinstance(value, str):  # a worker's own queue is named after its process and host
        return re.sub(r"^\d+@[\w.-]+", "worker@host", value)
    return value
