"""Files of the data folder: JSON and secrets, written whole or not at all."""

import json
import os
from pathlib import Path
from typing import Any

from logflume.errors import SettingsError


def read_json(path: Path) -> dict[str, Any]:
    """The object in `path`; empty when there is no such file.

    Raises:
        SettingsError: the file is there and holds no JSON object.
    """
    try:
        found = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise SettingsError(f"cannot read {path}: {error}; mend it or delete it") from error
    if not isinstance(found, dict):
        raise SettingsError(f"{path} holds no JSON object; mend it or delete it")
    return found


def write_private(path: Path, content: dict[str, Any] | str | bytes, mode: int = 0o600) -> None:
    """Replace `path` in one step by `content` (a dict as JSON), readable by its owner alone."""
    if isinstance(content, dict):
        content = json.dumps(content, indent=2) + "\n"
    data = content.encode() if isinstance(content, str) else content
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:
        file.write(data)
    fresh.replace(path)
