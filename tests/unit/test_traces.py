"""Which traces are kept, what log lines and Sentry are told, and what it costs to have none."""

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
from logflume.settings.groups import TelemetrySettings
from tests.support.collector import collecting

SECRET = "a line of the log"


def run(code: str) -> list[dict[str, Any]]:
    """Run code as a process of its own, whose logging is ours; the lines it logs."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    return [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]


def exporting(collector, **more):
    address = f"http://127.0.0.1:{collector.port}/"
    return spans.exporting(TelemetrySettings(otlp_endpoint=address, **more), "drain")


def test_without_collector_and_sentry_their_libraries_are_not_loaded():
    code = (
        "import sys, logflume_cli.drain, logflume_cli.web, logflume_cli.worker\n"
        "from logflume.settings.groups import TelemetrySettings\n"
        "with logflume_cli.services.exporting(TelemetrySettings(), 'web'), "
        "logflume_cli.services.sentry.reporting(TelemetrySettings(), 'web'): pass\n"
        "print([m for m in sys.modules if m.split('.')[0] in ('opentelemetry', 'sentry_sdk')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_all_processes_keep_the_same_logs():
    with collecting() as collector:
        kept = []
        for _ in range(2):
            with exporting(collector, trace_ratio=0.25):
                places = [spans.of_log(job_id) for job_id in range(1000)]
                kept.append({place.job_id for place in places if spans.is_kept(place)})
                for place in places:
                    with spans.span("signal", place):
                        pass
                assert all(
                    spans.is_kept(place.beside()) == spans.is_kept(place) for place in places
                )
        sent = {span.attributes["logflume.job_id"] for span in collector.spans()}
    assert kept[0] == kept[1] == sent
    assert 200 < len(sent) < 300


def test_an_error_is_told_by_its_type_alone():
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


def test_what_is_given_up_is_no_error():
    """As a reader does who has left before the last read said that there is no more."""
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
from logflume.settings.groups import TelemetrySettings
from logflume.observability.logging import configure_logging
from logflume.observability import spans

settings = TelemetrySettings(otlp_endpoint="http://127.0.0.1:{port}")
configure_logging(settings, "worker")
with spans.exporting(settings, "worker"):
    with spans.span("verify", spans.of_log(1)):
        structlog.get_logger().info("inside")
    structlog.get_logger().info("outside")
"""


def test_log_lines_name_the_span_they_are_written_in():
    with collecting() as collector:
        inside, outside = run(INSIDE.format(port=collector.port))
        [span] = collector.spans()
    assert (inside["trace_id"], inside["span_id"]) == (span.trace_id, span.span_id)
    assert "trace_id" not in outside


@pytest.mark.parametrize("header", ["nonsense", b"00-ff-01-01", 7, None, "00-" + "0" * 32 + "-1-1"])
def test_what_is_no_traceparent_is_left_out(header):
    with collecting() as collector, exporting(collector):
        assert spans.read_traceparent(header) is None


def test_wrong_settings_are_told_in_one_line():
    hidden = SecretStr("no pair")
    settings = TelemetrySettings(otlp_endpoint="http://127.0.0.1:9", otlp_headers=hidden)
    told = "OTLP_HEADERS: not of the form name=value"
    with pytest.raises(SettingsError, match=told), spans.exporting(settings, "drain"):
        pass
    with pytest.raises(ValidationError, match="set OTLP_HEADERS"):
        TelemetrySettings(otlp_endpoint="http://user:hidden@collector:4318")
    settings = TelemetrySettings(sentry_dsn=SecretStr("https://host/1"))
    told = "SENTRY_DSN: not of the form"
    with pytest.raises(SettingsError, match=told), sentry.reporting(settings, "web"):
        pass


BROKEN = """
import json, logging, structlog
from pydantic import SecretStr
from logflume.observability import sentry
from logflume.settings.groups import TelemetrySettings
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


def test_sentry_is_told_of_errors_and_of_no_text():
    with collecting() as collector:
        lines = run(BROKEN.format(port=collector.port))
        refused, broke, library, ended = collector.events()
        sent = b"".join(one.body for one in collector.sent)
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


def test_a_process_has_both():
    """Sentry is told of what ends it: here, that the headers for the collector are wrong."""
    code = (
        "import sys; sys.argv = ['logflume', 'drain']; from logflume_cli.main import main; main()"
    )
    with collecting() as collector:
        given = {
            "LOGFLUME_TELEMETRY__SENTRY_DSN": f"http://key@127.0.0.1:{collector.port}/1",
            "LOGFLUME_TELEMETRY__OTLP_ENDPOINT": f"http://127.0.0.1:{collector.port}",
            "LOGFLUME_TELEMETRY__OTLP_HEADERS": "no pair",
        }
        done = subprocess.run(
            [sys.executable, "-c", code], env=given, capture_output=True, text=True, check=False
        )
        [event] = collector.events()
    assert done.returncode == 1
    assert done.stderr.startswith("logflume: LOGFLUME_TELEMETRY__OTLP_HEADERS: ")
    assert event["tags"]["process"] == "drain"
    assert event["exception"]["values"][-1]["type"] == "SettingsError"
