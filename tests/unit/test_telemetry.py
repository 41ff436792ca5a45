"""Log lines on a terminal."""

import json
import subprocess
import sys

import asyncpg

from drain.flush import describe_failure
from logflume.settings.servers import TemporalSettings
from workflows.client import connection
from workflows.client.connection import connect_temporal

LOGS_UNTRUSTED_TEXT = """
import structlog
from logflume.settings.telemetry import TelemetrySettings
from logflume.observability.logging import configure_logging
configure_logging(TelemetrySettings(log_format="console"), "web")
structlog.get_logger().warning("request_failed", path="/\\x1b[2J", job="1\\nforged line")
"""


def test_untrusted_text_is_escaped_on_a_terminal():
    done = subprocess.run(
        [sys.executable, "-c", LOGS_UNTRUSTED_TEXT], capture_output=True, text=True, check=True
    )
    assert len(done.stderr.splitlines()) == 1
    assert "\x1b[2J" not in done.stderr
    assert "forged line" in done.stderr


LIBRARIES_LOG = """
import logging
from logflume.observability.logging import configure_logging
from logflume.settings.telemetry import TelemetrySettings
configure_logging(TelemetrySettings(log_format="json"), "drain")
try:
    raise ConnectionError("gone")
except ConnectionError:
    logging.getLogger("aiormq.connection").warning("reader exited", exc_info=True)
logging.getLogger("another").warning("a line\\nof two")
"""


def test_libraries_log_one_json_line_or_nothing():
    """A lost connection is logged by the code that reconnects, not by the library too."""
    done = subprocess.run(
        [sys.executable, "-c", LIBRARIES_LOG], capture_output=True, text=True, check=True
    )
    assert [json.loads(line)["event"] for line in done.stderr.splitlines()] == ["a line\nof two"]


async def test_lines_of_temporals_core_go_to_our_log():
    client = await connect_temporal(TemporalSettings(), lazy=True)
    runtime = client.service_client.config.runtime
    assert runtime is connection._runtime()
    assert connection._logging().forwarding.logger.name == "temporal"


def test_a_failed_flush_names_postgres_and_the_first_error():
    assert describe_failure(TimeoutError()) == "Postgres did not commit within 60 s"
    masking = asyncpg.InterfaceError("cannot call Transaction.__aexit__()")
    masking.__context__ = ConnectionResetError("connection was closed")
    assert describe_failure(masking) == "Postgres: connection was closed"
    assert describe_failure(asyncpg.InterfaceError("a\nrow")) == "Postgres: a"
