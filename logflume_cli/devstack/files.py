"""Reads and atomically writes the files of the data folder: JSON and secrets."""

import json
import os
from pathlib import Path
from typing import Any

from logflume.errors import SettingsError


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in `path`; empty if the file does not exist.

    Raises:
        SettingsError: the file does not contain a JSON object.
    """
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise SettingsError(f"cannot read {path}: {error}; fix or delete it") from error
    if not isinstance(content, dict):
        raise SettingsError(f"{path} does not contain a JSON object; fix or delete it")
    return content


def write_private(path: Path, content: dict[str, Any] | str | bytes, mode: int = 0o600) -> None:
    """Atomically replace `path` with `content` (a dict as JSON), readable only by its owner."""
    if isinstance(content, dict):
        content = json.dumps(content, indent=2) + "\n"
    data = content.encode() if isinstance(content, str) else content
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:
        file.write(data)
    fresh.replace(path)
