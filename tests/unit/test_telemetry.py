"""How log lines look to a person at a terminal."""

import subprocess
import sys

SAYS = """
import structlog
from logflume.settings.groups import TelemetrySettings
from logflume.observability.logging import configure_logging
configure_logging(TelemetrySettings(log_format="console"), "web")
structlog.get_logger().warning("request_failed", path="/logs/\\x1b[2J\\nforged line")
"""


def test_what_others_chose_neither_moves_the_cursor_nor_begins_a_line():
    done = subprocess.run([sys.executable, "-c", SAYS], capture_output=True, text=True, check=True)
    assert len(done.stderr.splitlines()) == 1
    assert "\x1b[2J" not in done.stderr
    assert "forged line" in done.stderr
