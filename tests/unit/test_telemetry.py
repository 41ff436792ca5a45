"""Log lines on a terminal."""

import subprocess
import sys

LOGS_UNTRUSTED_TEXT = """
import structlog
from logflume.settings.groups import TelemetrySettings
from logflume.observability.logging import configure_logging
configure_logging(TelemetrySettings(log_format="console"), "web")
structlog.get_logger().warning("request_failed", path="/logs/\\x1b[2J\\nforged line")
"""


def test_untrusted_text_is_escaped_on_a_terminal():
    done = subprocess.run(
        [sys.executable, "-c", LOGS_UNTRUSTED_TEXT], capture_output=True, text=True, check=True
    )
    assert len(done.stderr.splitlines()) == 1
    assert "\x1b[2J" not in done.stderr
    assert "forged line" in done.stderr
