"""Traces and error reports: sampling, contents, wrong settings, and no cost when disabled."""

import asyncio
import json
import re
import subprocess
import sys
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from logflume.errors import SettingsError
from logflume.observability import sentry, spans
from logflume.settings.telemetry import TelemetrySettings
from tests.support.collector import collecting

SECRET = "a line of the log"


def run(code: str) -> list[dict[str, Any]]:
    """Run code in a subprocess and return its JSON log lines."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    return [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]


def exporting(collector, **more):
    address = f"http://127.0.0.1:{collector.port}/"
    return spans.exporting(TelemetrySettings(otlp_endpoint=address, **more), "drain")


def test_without_collector_and_dsn_the_libraries_are_not_imported():
    code = (
        "import sys, logflume_cli.drain, logflume_cli.web, logflume_cli.worker\n"
        "from logflume.settings.telemetry import TelemetrySettings\n"
        "with logflume_cli.services.exporting(TelemetrySettings(), 'web'), "
        "logflume_cli.services.sentry.reporting(TelemetrySettings(), 'web'): pass\n"
        "print([m for m in sys.modules if m.split('.')[0] in ('opentelemetry', 'sentry_sdk')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_all_processes_sample_the_same_logs():
    with collecting() as collector:
        sampled = []
        for _ in range(2):
            with exporting(collector, trace_ratio=0.25):
                logs = [spans.of_log(job_id) for job_id in range(1000)]
                sampled.append({log.job_id for log in logs if spans.is_sampled(log)})
                for log in logs:
                    with spans.span("signal", log):
                        pass
                assert all(spans.is_sampled(log.beside()) == spans.is_sampled(log) for log in logs)
        sent = {span.attributes["logflume.job_id"] for span in collector.spans()}
    assert sampled[0] == sampled[1] == sent
    assert 200 < len(sent) < 300


def test_of_an_error_only_the_type_is_sent():
    with collecting() as collector:
        with (
            exporting(collector),
            pytest.raises(ValueError, match=SECRET),
            spans.span("verify", spans.of_log(1)),
        ):
            raise ValueError(SECRET)
        [span] = collector.spans()
        assert span.error == "ValueError"
        assert SECRET.encode() not in collector.sent[0].body


def test_a_cancelled_span_is_not_an_error():
    """A reader may disconnect before the last read of an object."""
    with collecting() as collector:
        with (
            exporting(collector),
            pytest.raises(asyncio.CancelledError),
            spans.span("S3 read", spans.of_log(1)),
        ):
            raise asyncio.CancelledError
        [span] = collector.spans()
        assert not span.error


INSIDE = """
import structlog
from logflume.settings.telemetry import TelemetrySettings
from logflume.observability.logging import configure_logging
from logflume.observability import spans

settings = TelemetrySettings(otlp_endpoint="http://127.0.0.1:{port}")
configure_logging(settings, "worker")
with spans.exporting(settings, "worker"):
    with spans.span("verify", spans.of_log(1)):
        structlog.get_logger().info("inside")
    structlog.get_logger().info("outside")
"""


def test_log_lines_have_the_ids_of_the_current_span():
    with collecting() as collector:
        inside, outside = run(INSIDE.format(port=collector.port))
        [span] = collector.spans()
    assert (inside["trace_id"], inside["span_id"]) == (span.trace_id, span.span_id)
    assert "trace_id" not in outside


@pytest.mark.parametrize("header", ["nonsense", b"00-ff-01-01", 7, None, "00-" + "0" * 32 + "-1-1"])
def test_an_invalid_traceparent_is_ignored(header):
    with collecting() as collector, exporting(collector):
        assert spans.read_traceparent(header) is None


def test_wrong_settings_are_one_clear_line():
    hidden = SecretStr("no pair")
    settings = TelemetrySettings(otlp_endpoint="http://127.0.0.1:9", otlp_headers=hidden)
    message = "OTLP_HEADERS: not of the form name=value"
    with pytest.raises(SettingsError, match=message), spans.exporting(settings, "drain"):
        pass
    with pytest.raises(ValidationError, match="set OTLP_HEADERS"):
        TelemetrySettings(otlp_endpoint="http://user:hidden@collector:4318")
    settings = TelemetrySettings(sentry_dsn=SecretStr("https://host/1"))
    message = "SENTRY_DSN: not of the form"
    with pytest.raises(SettingsError, match=message), sentry.reporting(settings, "web"):
        pass


@pytest.mark.parametrize(
    ("setting", "extra"),
    [
        ("LOGFLUME_TELEMETRY__OTLP_ENDPOINT=http://127.0.0.1:9", "logflume[otel]"),
        ("LOGFLUME_TELEMETRY__SENTRY_DSN=http://key@127.0.0.1:9/1", "logflume[sentry]"),
    ],
)
def test_a_process_that_needs_a_missing_extra_exits_with_one_line_that_names_it(setting, extra):
    code = (
        "import sys; sys.modules.update({'opentelemetry': None, 'sentry_sdk': None});"
        "from logflume_cli.main import main; sys.argv[1:] = ['web']; main()"
    )
    environment = dict([setting.split("=")])
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert line.startswith(f"logflume: {setting.split('=')[0]} is set, but ")
    assert f"install {extra}" in line


BROKEN = """
import json, logging, structlog
from pydantic import SecretStr
from logflume.observability import sentry
from logflume.settings.telemetry import TelemetrySettings
from logflume.observability.logging import configure_logging

settings = TelemetrySettings(sentry_dsn=SecretStr("http://key@127.0.0.1:{port}/1"))
configure_logging(settings, "worker")
log, local = structlog.get_logger(), " ".join(["a", "line", "of", "the", "log"])
with sentry.reporting(settings, "worker"):
    log.warning("signal_failed", job_id=7)
    log.error("part_refused", job_id=7, error=local)
    try:
        json.loads(local)
    except ValueError:
        log.exception("request_broke", path="/logs/7")
        logging.getLogger("asyncio").exception("Task failed: %s", local)
    raise KeyError(local)
"""


def test_sentry_receives_errors_without_their_text():
    with collecting() as collector:
        lines = run(BROKEN.format(port=collector.port))
        refused, broke, library, ended = collector.events()
        sent = b"".join(request.body for request in collector.sent)
    assert refused["message"] == "part_refused"
    assert refused["tags"] == {"job_id": "7", "process": "worker"}
    assert broke["message"] == "request_broke"
    parsing = "JSONDecodeError"
    for event, kind in ((broke, parsing), (library, parsing), (ended, "KeyError")):
        [raised] = event["exception"]["values"]
        assert (raised["type"], raised["value"]) == (kind, "")
        assert event["tags"]["process"] == "worker"
        assert not [frame for frame in raised["stacktrace"]["frames"] if "vars" in frame]
    assert re.fullmatch(r"asyncio, line \d+", library["message"])
    assert (ended["message"], ended["level"]) == ("the process ended", "fatal")
    assert SECRET in str(lines)
    assert SECRET.encode() not in sent


def test_an_error_that_ends_a_process_is_reported_to_sentry():
    """Here, the headers for the collector are wrong."""
    code = (
        "import sys; sys.argv = ['logflume', 'drain']; from logflume_cli.main import main; main()"
    )
    with collecting() as collector:
        environment = {
            "LOGFLUME_TELEMETRY__SENTRY_DSN": f"http://key@127.0.0.1:{collector.port}/1",
            "LOGFLUME_TELEMETRY__OTLP_ENDPOINT": f"http://127.0.0.1:{collector.port}",
            "LOGFLUME_TELEMETRY__OTLP_HEADERS": "no pair",
        }
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        [event] = collector.events()
    assert done.returncode == 1
    assert done.stderr.startswith("logflume: LOGFLUME_TELEMETRY__OTLP_HEADERS: ")
    assert event["tags"]["process"] == "drain"
    assert event["exception"]["values"][-1]["type"] == "SettingsError"
