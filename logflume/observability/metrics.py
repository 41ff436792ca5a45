"""Prometheus metrics of the running process, and gauges that are read from elsewhere."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import NamedTuple

import structlog
from prometheus_client import REGISTRY, Counter, Gauge, Metric, disable_created_metrics
from prometheus_client.registry import Collector

from logflume.observability.health import describe_error, in_time

log = structlog.get_logger()

# However many scrape, and however often, others are asked for figures at most this often.
READ_SECONDS = 5.0

# One more series for each counter, that nobody asked for.
disable_created_metrics()  # type: ignore[no-untyped-call]


class Process(Collector):
    """What one of our processes counts, wherever the modules of others are loaded too."""

    def __init__(self, name: str) -> None:
        self._prefix = f"logflume_{name}_"

    def collect(self) -> Iterable[Metric]:
        """Leave out what only the others count."""
        for metric in REGISTRY.collect():
            if metric.name.startswith(self._prefix) or not metric.name.startswith("logflume_"):
                yield metric


class Reading(NamedTuple):
    """Gauges whose values `source` must be asked for; `read` returns them in the same order."""

    source: str
    gauges: Sequence[Gauge]
    read: Callable[[], Awaitable[Sequence[float]]]


class Readings:
    """Keeps gauges fresh that others must be asked for; what cannot be had shows as no number."""

    def __init__(self, readings: Sequence[Reading], failures: Counter) -> None:
        self._readings = readings
        self._failures = {one.source: failures.labels(one.source) for one in readings}
        self._lock = asyncio.Lock()
        self._read_at = -READ_SECONDS

    async def refresh(self) -> None:
        """Ask every source, unless that was done just now."""
        async with self._lock:
            if time.monotonic() - self._read_at >= READ_SECONDS:
                await asyncio.gather(*map(self._refresh, self._readings))
                self._read_at = time.monotonic()

    async def _refresh(self, reading: Reading) -> None:
        try:
            values = await in_time(reading.read)
        except Exception as error:  # noqa: BLE001 - the other figures must be seen all the more
            self._failures[reading.source].inc()
            log.warning("reading_failed", source=reading.source, error=describe_error(error))
            # An old value would tell that all is as it was.
            values = [float("nan")] * len(reading.gauges)
        for gauge, value in zip(reading.gauges, values, strict=True):
            gauge.set(value)
