"""Prometheus metrics of the running process, and gauges read from its dependencies."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import NamedTuple

import structlog
from prometheus_client import REGISTRY, Counter, Gauge, Metric, disable_created_metrics
from prometheus_client.registry import Collector

from logflume.observability.health import describe_error, in_time

log = structlog.get_logger()

# Minimum seconds between two reads of a dependency, however often metrics are scraped.
READ_SECONDS = 5.0

# They add an unused series per counter.
disable_created_metrics()  # type: ignore[no-untyped-call]


class ProcessCollector(Collector):
    """The metrics of one process, without those of other processes whose modules are imported."""

    def __init__(self, name: str) -> None:
        self._prefix = f"logflume_{name}_"

    def collect(self) -> Iterable[Metric]:
        """Yield the metrics of this process and those of libraries."""
        for metric in REGISTRY.collect():
            if metric.name.startswith(self._prefix) or not metric.name.startswith("logflume_"):
                yield metric


class Reading(NamedTuple):
    """Gauges read from the dependency `source`; `read` returns their values in the same order."""

    source: str
    gauges: Sequence[Gauge]
    read: Callable[[], Awaitable[Sequence[float]]]


class Readings:
    """Refreshes gauges from dependencies; values that cannot be read become NaN."""

    def __init__(self, readings: Sequence[Reading], failures: Counter) -> None:
        self._readings = readings
        self._failures = {item.source: failures.labels(item.source) for item in readings}
        self._lock = asyncio.Lock()
        self._read_at = -READ_SECONDS

    async def refresh(self) -> None:
        """Read every source, unless the last read is less than 5 s old."""
        async with self._lock:
            if time.monotonic() - self._read_at >= READ_SECONDS:
                await asyncio.gather(*map(self._refresh, self._readings))
                self._read_at = time.monotonic()

    async def _refresh(self, reading: Reading) -> None:
        try:
            values = await in_time(reading.read)
        except Exception as error:  # noqa: BLE001 - the other metrics must still be served
            self._failures[reading.source].inc()
            log.warning("metrics_read_failed", source=reading.source, error=describe_error(error))
            # A stale value would look current.
            values = [float("nan")] * len(reading.gauges)
        for gauge, value in zip(reading.gauges, values, strict=True):
            gauge.set(value)
