"""Reports errors to Sentry: what failed, where and for which job, but never log content or values.

Reported are log lines of level error and exceptions that end a process. Of an exception only its
type and stack trace are sent: its text and variables may quote a log or a secret.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, cast

from logflume.errors import SettingsError
from logflume.settings.telemetry import TelemetrySettings

if TYPE_CHECKING:
    from sentry_sdk.types import Event

LEVELS = {"error": "error", "critical": "fatal"}
# How long a process waits at its end for the last reports.
FLUSH_SECONDS = 2.0


class _Process:
    is_on = False


@contextmanager
def reporting(settings: TelemetrySettings, process: str) -> Iterator[None]:
    """Report errors of the block, and an exception that ends it, if a DSN is configured.

    Raises:
        SettingsError: the Sentry SDK is not installed, or the DSN is invalid.
    """
    if settings.sentry_dsn is None:
        yield
        return
    try:
        import sentry_sdk  # noqa: PLC0415 - an extra
        from sentry_sdk.utils import BadDsn  # noqa: PLC0415
    except ImportError as error:
        raise SettingsError(
            "LOGFLUME_TELEMETRY__SENTRY_DSN is set, but the Sentry SDK is not installed: "
            f"install logflume[sentry], or unset it ({error})"
        ) from None

    try:
        sentry_sdk.init(
            settings.sentry_dsn.get_secret_value(),
            release=f"logflume@{version('logflume')}",
            # Integrations collect more than may leave the process.
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
    """Report a log line of level error (a structlog processor)."""
    if _Process.is_on and line["level"] in LEVELS:
        # A library's text may quote anything: report only where it was logged.
        record = line.get("_record")
        message = f"{record.name}, line {record.lineno}" if record else line["event"]
        tags = {"job_id": str(line["job_id"])} if "job_id" in line else {}
        _send({"level": LEVELS[line["level"]], "message": message}, line.get("exc_info"), tags)
    return line


def _send(event: dict[str, Any], raised: Any, tags: dict[str, str]) -> None:
    import sentry_sdk  # noqa: PLC0415
    from sentry_sdk.utils import event_from_exception  # noqa: PLC0415

    hint: dict[str, Any] = {}
    raised = sys.exc_info() if raised is True else raised
    if raised:
        details, hint = event_from_exception(raised, sentry_sdk.get_client().options)
        event = {**details, **event}
    sentry_sdk.capture_event(cast("Event", {**event, "tags": tags}), hint)


def _without_text(event: "Event", _: dict[str, Any]) -> "Event":
    for exception in (event.get("exception") or {}).get("values", ()):
        exception["value"] = ""
    return event
