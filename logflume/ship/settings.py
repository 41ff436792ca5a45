"""The shipper's settings from the environment.

`logflume/settings/ship.py` describes and documents them; its libraries take longer to import than a
short command runs.
"""

import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

from logflume.errors import SettingsError

PREFIX = "LOGFLUME_SHIP__"
MIN_SPOOL_BYTES = 1024 * 1024


@dataclass(frozen=True)
class ShipSettings:
    """The shipper's settings; `web_url` and `amqp_url` are those of the groups web and amqp."""

    token: str = ""
    spool_dir: Path | None = None
    spool_bytes: int = 256 * 1024 * 1024
    flush_seconds: float = 1.0
    give_up_seconds: float = 300.0
    web_url: str = ""
    amqp_url: str = ""

    @classmethod
    def load(cls) -> Self:
        """Read them from the environment.

        Raises:
            SettingsError: one has no valid value; the text names it.
        """
        values: dict[str, Any] = {
            "web_url": value("LOGFLUME_WEB__URL"),
            "amqp_url": value("LOGFLUME_AMQP__URL"),
        }
        for field in fields(cls):
            name = f"{PREFIX}{field.name.upper()}"
            if field.name not in values and (text := value(name)):
                try:
                    values[field.name] = _TYPES[field.name](text)
                except ValueError:
                    raise SettingsError(f"{name}: not a number") from None
        return cls(**values)

    def __post_init__(self) -> None:
        """Raise a SettingsError for a value out of range."""
        if self.spool_bytes < MIN_SPOOL_BYTES:
            raise SettingsError(f"{PREFIX}SPOOL_BYTES: must be at least {MIN_SPOOL_BYTES}")
        for name in ("flush_seconds", "give_up_seconds"):
            if not getattr(self, name) >= 0:
                raise SettingsError(f"{PREFIX}{name.upper()}: must not be negative")

    @property
    def folder(self) -> Path:
        """The folder of all spools."""
        if self.spool_dir is not None:
            return self.spool_dir
        state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
        return Path(state) / "logflume"


_TYPES = {
    "token": str,
    "spool_dir": Path,
    "spool_bytes": int,
    "flush_seconds": float,
    "give_up_seconds": float,
}


def value(name: str) -> str:
    """The value of a setting, or the content of the file that NAME_FILE names."""
    file = os.environ.get(f"{name}_FILE")
    if not file:
        return os.environ.get(name, "")
    try:
        return Path(file).read_text("utf-8").rstrip("\r\n")
    except (OSError, ValueError) as error:
        raise SettingsError(f"{name}_FILE: cannot read the file: {error}") from None
