"""Errors for Sentry: that, where and of which job; never what the log or a value in it was.

Sent are lines of level error and what ends a process. Of an exception go its type and the lines of
code it came through: its text and variables may quote a log or a secret.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, cast

from logflume.errors import SettingsError
from logflume.settings.groups import TelemetrySettings

if TYPE_CHECKING:
    from sentry_sdk.types import Event

LEVELS = {"error": "error", "critical": "fatal"}
# How long the end of a process waits for the last ones.
FLUSH_SECONDS = 2.0


class _Process:
    is_on = False


@contextmanager
def reporting(settings: TelemetrySettings, process: str) -> Iterator[None]:
    """Send errors of the block to Sentry, if there is one, and what ends it.

    Raises:
        SettingsError: the DSN is none.
    """
    if settings.sentry_dsn is None:
        yield
        return
    import sentry_sdk  # noqa: PLC0415 - who has no Sentry does not load it
    from sentry_sdk.utils import BadDsn  # noqa: PLC0415

    try:
        sentry_sdk.init(
            settings.sentry_dsn.get_secret_value(),
            release=f"logflume@{version('logflume')}",
            # What they find by themselves is more than should leave.
            default_integrations=False,
            auto_enabling_integrations=False,
            auto_session_tracking=False,
            send_client_reports=False,
            include_local_variables=False,
            max_request_body_size="never",
            max_breadcrumbs=0,
            before_send=_without_text,
        )
    except BadDsn:
        raise SettingsError(
            "LOGFLUME_TELEMETRY__SENTRY_DSN: not of the form https://key@host/project"
        ) from None
    sentry_sdk.set_tag("process", process)
    _Process.is_on = True
    try:
        yield
    except Exception as error:
        _send({"level": "fatal", "message": "the process ended"}, error, {})
        raise
    finally:
        _Process.is_on = False
        sentry_sdk.flush(FLUSH_SECONDS)
        sentry_sdk.get_client().close()


def report(_: Any, __: str, line: Any) -> Any:
    """Send a log line of level error (a processor of structlog)."""
    if _Process.is_on and line["level"] in LEVELS:
        # A library's own text may quote anything, so that only its place is told.
        record = line.get("_record")
        said = f"{record.name}, line {record.lineno}" if record else line["event"]
        tags = {"job_id": str(line["job_id"])} if "job_id" in line else {}
        _send({"level": LEVELS[line["level"]], "message": said}, line.get("exc_info"), tags)
    return line


def _send(event: dict[str, Any], raised: Any, tags: dict[str, str]) -> None:
    import sentry_sdk  # noqa: PLC0415
    from sentry_sdk.utils import event_from_exception  # noqa: PLC0415

    hint: dict[str, Any] = {}
    raised = sys.exc_info() if raised is True else raised
    if raised:
        found, hint = event_from_exception(raised, sentry_sdk.get_client().options)
        event = {**found, **event}
    sentry_sdk.capture_event(cast("Event", {**event, "tags": tags}), hint)


def _without_text(event: "Event", _: dict[str, Any]) -> "Event":
    for one in (event.get("exception") or {}).get("values", ()):
        one["value"] = ""
    return event
