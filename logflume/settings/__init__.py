"""Settings, one group per component.

Sources, in this order: the environment (`LOGFLUME_<GROUP>__<FIELD>`, or with the suffix `_FILE`
the name of a file with the value), the local stack's settings file (only in a checkout or where
LOGFLUME_STACK__DATA_DIR is set, never in production), the defaults. `docs/settings.md` is generated
from this package.
"""

import json
import os
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)
from pydantic_settings import SettingsError as UnreadableSource

from logflume.errors import SettingsError
from logflume.settings.servers import (
    AmqpSettings,
    DatabaseSettings,
    PusherSettings,
    S3Settings,
    StackSettings,
    TemporalSettings,
)
from logflume.settings.ship import ShipSettings
from logflume.settings.stages import (
    DrainSettings,
    LifecycleSettings,
    PartitionSettings,
    RetentionSettings,
    SweepSettings,
    WebSettings,
    WorkerSettings,
)
from logflume.settings.telemetry import TelemetrySettings

PREFIX = "LOGFLUME_"


class Settings(BaseSettings):
    """All groups; built once per process."""

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
    ship: ShipSettings = ShipSettings()
    stack: StackSettings = StackSettings()
    telemetry: TelemetrySettings = TelemetrySettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Give arguments precedence over the environment, and both over the local stack's file."""
        return (init_settings, _Environment(settings_cls), _StackFile(settings_cls))


class _Environment(EnvSettingsSource):
    """The environment; `<FIELD>_FILE` is replaced by the content of the file that it names."""

    def __call__(self) -> dict[str, Any]:
        groups = super().__call__()
        for group, values in groups.items():
            if not isinstance(values, dict):
                continue  # pydantic reports it
            fields = type(Settings.model_fields[group].default).model_fields
            for name in {f"{field}_file" for field in fields} - fields.keys() & {*values}:
                variable, field = f"{PREFIX}{group}__{name}".upper(), name.removesuffix("_file")
                if field in values:
                    raise SettingsError(f"{variable}: set it or the value itself, not both")
                try:
                    values[field] = Path(values.pop(name)).read_text("utf-8").rstrip("\r\n")
                except (OSError, ValueError) as error:
                    raise SettingsError(f"{variable}: cannot read the file: {error}") from None
        return groups


class _StackFile(PydanticBaseSettingsSource):
    """The file that the local stack writes so that every command finds it without options."""

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        raise NotImplementedError  # __call__ reads the whole file at once

    def __call__(self) -> dict[str, Any]:
        stack = self.current_state.get("stack") or {}
        data_dir = stack.get("data_dir", StackSettings().data_dir)
        if data_dir is None:
            return {}
        path = stack_file(Path(data_dir))
        try:
            return dict(json.loads(path.read_text()))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise SettingsError(f"cannot read {path}: {error}; fix or delete it") from error


def stack_file(data_dir: Path) -> Path:
    """The settings file of the local stack in `data_dir`."""
    return data_dir / "settings.json"


def load_settings(**overrides: Any) -> Settings:
    """Read all settings.

    Raises:
        SettingsError: a setting is wrong; the text is one line that names it, without its value.
    """
    groups = Settings.model_fields
    for name in os.environ:
        group = name.removeprefix(PREFIX).split("__")[0].lower()
        if name.startswith(PREFIX) and group not in groups:
            known = ", ".join(groups)
            raise SettingsError(f"{name}: unknown settings group {group!r}; use one of: {known}")
    try:
        return Settings(**overrides)
    except ValidationError as error:
        raise SettingsError("; ".join(_line(item) for item in error.errors())) from None
    except UnreadableSource as error:
        raise SettingsError(f"{error}; set single fields, e.g. {PREFIX}WEB__PORT") from None


def _line(item: Any) -> str:
    name = PREFIX + "__".join(map(str, item["loc"])).upper()
    return f"{name}: {item['msg'].removeprefix('Value error, ')}"
