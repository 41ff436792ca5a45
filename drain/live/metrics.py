"""What became of the events: counted for the metrics, and losses told, though not each."""

import time
from collections import Counter
from typing import Literal

import structlog
from prometheus_client import Counter as Metric

log = structlog.get_logger()

EVENTS = Metric(
    "logflume_drain_live_events",
    "Events for Pusher: sent, dropped because too many waited, or failed on the way.",
    ["result"],
)
for _result in ("sent", "dropped", "failed"):
    EVENTS.labels(_result)  # a counter that is not there yet would hide its first step
TELL_SECONDS = 10


class Tally:
    """Counts events; of what is lost it writes a line at most every 10 seconds."""

    def __init__(self) -> None:
        self._untold: Counter[str] = Counter()
        self._why = ""
        self._silent_until = 0.0

    def sent(self, events: int) -> None:
        """Count events that Pusher took."""
        EVENTS.labels("sent").inc(events)

    def lost(self, result: Literal["dropped", "failed"], events: int, why: str) -> None:
        """Count events that nobody will see live."""
        EVENTS.labels(result).inc(events)
        self._untold[result] += events
        self._why = why
        if time.monotonic() >= self._silent_until:
            self.tell()

    def tell(self) -> None:
        """Write the line about what was lost since the last one, if anything was."""
        if self._untold:
            log.warning("live_events_lost", **self._untold, error=self._why)
            self._untold.clear()
            self._silent_until = time.monotonic() + TELL_SECONDS
