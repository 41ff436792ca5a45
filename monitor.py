"""What every process shows of itself over HTTP: figures for Prometheus, and its health.

The web has routes of its own for it; the drain and the worker open the port of the setting
`telemetry.port` for nothing else.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple, TypeVar

import aiohttp
import asyncpg
import structlog
from aiohttp import web
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    Counter,
    Gauge,
    Metric,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.registry import Collector
from temporalio.service import RPCError

from db.connect import UNREACHABLE
from errors import ComponentError, LogflumeError
from settings.groups import TelemetrySettings

log = structlog.get_logger()

CHECK_SECONDS = 3
# However many scrape, and however often, others are asked for figures at most this often.
READ_SECONDS = 5.0

# One more series for each counter, that nobody asked for.
disable_created_metrics()  # type: ignore[no-untyped-call]

Ask = Callable[[], Awaitable[object]]
T = TypeVar("T")


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
            values = await _in_time(reading.read)
        except Exception as error:  # noqa: BLE001 - the other figures must be seen all the more
            self._failures[reading.source].inc()
            log.warning("reading_failed", source=reading.source, error=_said(error))
            # An old value would tell that all is as it was.
            values = [float("nan")] * len(reading.gauges)
        for gauge, value in zip(reading.gauges, values, strict=True):
            gauge.set(value)


async def check_all(dependencies: Mapping[str, Ask]) -> dict[str, str]:
    """Ask each dependency: `ok`, or what is wrong with it."""
    answers = await asyncio.gather(*map(_check, dependencies.values()))
    return dict(zip(dependencies, answers, strict=True))


async def _check(ask: Ask) -> str:
    try:
        await _in_time(ask)
    except (LogflumeError, RPCError, RuntimeError, asyncpg.PostgresError, *UNREACHABLE) as error:
        return _said(error)
    return "ok"


async def _in_time(ask: Callable[[], Awaitable[T]]) -> T:
    """Wait for an answer, not for the end of a question that is given up.

    A pool whose Postgres has stopped takes no connection back until that took note of it.

    Raises:
        TimeoutError: there is none within 3 s.
    """
    asked = asyncio.ensure_future(ask())
    # Whatever it comes to after that, nobody is left to hear of it.
    asked.add_done_callback(lambda it: it.cancelled() or it.exception())
    try:
        if not (await asyncio.wait({asked}, timeout=CHECK_SECONDS))[0]:
            raise TimeoutError
        return await asked
    finally:
        asked.cancel()


def _said(error: Exception) -> str:
    return str(error) or type(error).__name__


@asynccontextmanager
async def showing(
    name: str,
    settings: TelemetrySettings,
    dependencies: Mapping[str, Ask],
    readings: Readings,
    sdk_metrics: str = "",
) -> AsyncIterator[int | None]:
    """Serve `/metrics`, `/health/live` and `/health/ready`; yields the port, if there is one.

    `name` is that of the process: drain or worker. `dependencies` are asked whether it is ready.
    `sdk_metrics` is the URL under which Temporal's library shows figures of its own: they are
    shown with ours.

    Raises:
        ComponentError: the port cannot be had.
    """
    if settings.port is None:
        yield None
        return

    process = Process(name)

    async def metrics(_: web.Request) -> web.Response:
        await readings.refresh()
        body = generate_latest(process)
        if sdk_metrics:
            async with session.get(sdk_metrics) as answer:
                body += await answer.read()
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def live(_: web.Request) -> web.Response:
        return _health({})

    async def ready(_: web.Request) -> web.Response:
        return _health(await check_all(dependencies))

    app = web.Application()
    app.add_routes(
        [
            web.get("/metrics", metrics),
            web.get("/health/live", live),
            web.get("/health/ready", ready),
        ]
    )
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    timeout = aiohttp.ClientTimeout(total=CHECK_SECONDS)
    try:
        async with aiohttp.ClientSession(timeout=timeout) as session:
            await _listen(runner, settings.host, settings.port)
            yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


async def _listen(runner: web.AppRunner, host: str, port: int) -> None:
    try:
        await web.TCPSite(runner, host, port).start()
    except OSError as error:
        raise ComponentError(
            f"cannot listen on {host} port {port}: {error.strerror}; end what listens there, or "
            "set LOGFLUME_TELEMETRY__HOST and LOGFLUME_TELEMETRY__PORT"
        ) from error


def _health(found: dict[str, str]) -> web.Response:
    is_ok = all(answer == "ok" for answer in found.values())
    body = {"status": "ok" if is_ok else "unavailable", "dependencies": found}
    return web.json_response(body, status=200 if is_ok else 503)
