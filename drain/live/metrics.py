"""Counts the events for Pusher, and logs lost ones at a limited rate."""

import time
from collections import Counter
from typing import Literal

import structlog
from prometheus_client import Counter as Metric

log = structlog.get_logger()

EVENTS = Metric(
    "logflume_drain_live_events",
    "Events for Pusher: sent, dropped because the backlog was full, or failed in transit.",
    ["result"],
)
for _result in ("sent", "dropped", "failed"):
    EVENTS.labels(_result)  # a counter that does not exist yet would hide its first step
LOG_SECONDS = 10


class Tally:
    """Counts events; logs lost ones at most every LOG_SECONDS."""

    def __init__(self) -> None:
        self._lost: Counter[str] = Counter()
        self._reason = ""
        self._silent_until = 0.0

    def sent(self, events: int) -> None:
        """Count events that Pusher accepted."""
        EVENTS.labels("sent").inc(events)

    def lost(self, result: Literal["dropped", "failed"], events: int, reason: str) -> None:
        """Count events that readers do not receive live."""
        EVENTS.labels(result).inc(events)
        self._lost[result] += events
        self._reason = reason
        if time.monotonic() >= self._silent_until:
            self.report()

    def report(self) -> None:
        """Log the events lost since the last report, if any."""
        if self._lost:
            log.warning("live_events_lost", **self._lost, error=self._reason)
            self._lost.clear()
            self._silent_until = time.monotonic() + LOG_SECONDS
