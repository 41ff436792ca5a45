"""Settings, one group for each part of the system (`groups.py`).

Read from the environment (`LOGFLUME_<GROUP>__<FIELD>`), then from the file that the local stack
writes into its data folder, then from the defaults. `docs/settings.md` is made from this package.
"""

import json
import os
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict
from pydantic_settings import SettingsError as UnreadableSource

from logflume.errors import SettingsError
from logflume.settings.groups import (
    AmqpSettings,
    DatabaseSettings,
    DrainSettings,
    LifecycleSettings,
    PartitionSettings,
    PusherSettings,
    RetentionSettings,
    S3Settings,
    StackSettings,
    SweepSettings,
    TelemetrySettings,
    TemporalSettings,
    WebSettings,
    WorkerSettings,
)

PREFIX = "LOGFLUME_"


class Settings(BaseSettings):
    """All groups. Built once, where a process is put together."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True
    )

    amqp: AmqpSettings = AmqpSettings()
    database: DatabaseSettings = DatabaseSettings()
    temporal: TemporalSettings = TemporalSettings()
    s3: S3Settings = S3Settings()
    drain: DrainSettings = DrainSettings()
    lifecycle: LifecycleSettings = LifecycleSettings()
    sweep: SweepSettings = SweepSettings()
    partitions: PartitionSettings = PartitionSettings()
    retention: RetentionSettings = RetentionSettings()
    worker: WorkerSettings = WorkerSettings()
    web: WebSettings = WebSettings()
    pusher: PusherSettings = PusherSettings()
    stack: StackSettings = StackSettings()
    telemetry: TelemetrySettings = TelemetrySettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments win over the environment, that over the local stack's file."""
        return (init_settings, env_settings, _StackFile(settings_cls))


class _StackFile(PydanticBaseSettingsSource):
    """The file the local stack writes so that every command attaches to it unasked."""

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        raise NotImplementedError  # the whole file is read at once, by __call__

    def __call__(self) -> dict[str, Any]:
        stack = self.current_state.get("stack") or {}
        path = stack_file(Path(stack.get("data_dir", StackSettings().data_dir)))
        try:
            found = json.loads(path.read_text())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise SettingsError(f"cannot read {path}: {error}; mend it or delete it") from error
        return dict(found)


def stack_file(data_dir: Path) -> Path:
    """Where the local stack under `data_dir` keeps the settings of its components."""
    return data_dir / "settings.json"


def load_settings(**overrides: Any) -> Settings:
    """Read all settings.

    Raises:
        SettingsError: one line that names the setting, what is wrong and never its secret value.
    """
    groups = Settings.model_fields
    for name in os.environ:
        group = name.removeprefix(PREFIX).split("__")[0].lower()
        if name.startswith(PREFIX) and group not in groups:
            known = ", ".join(groups)
            raise SettingsError(f"{name}: there is no settings group {group!r}; known: {known}")
    try:
        return Settings(**overrides)
    except ValidationError as error:
        raise SettingsError("; ".join(_line(item) for item in error.errors())) from None
    except UnreadableSource as error:
        raise SettingsError(f"{error}; set single fields instead, as {PREFIX}WEB__PORT") from None


def _line(item: Any) -> str:
    name = PREFIX + "__".join(str(place) for place in item["loc"]).upper()
    return f"{name}: {item['msg'].removeprefix('Value error, ')}"
