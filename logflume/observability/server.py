"""The HTTP server for operators: `/metrics`, `/health/live` and `/health/ready`.

It listens on the port in the setting `telemetry.port`; without it, the web serves these routes on
its own port, and the other processes do not.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import aiohttp
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from logflume.errors import ComponentError
from logflume.observability.health import CHECK_SECONDS, Check, check_all
from logflume.observability.metrics import ProcessCollector, Readings
from logflume.settings.telemetry import TelemetrySettings


@asynccontextmanager
async def metrics_server(
    name: str,
    settings: TelemetrySettings,
    dependencies: Mapping[str, Check],
    readings: Readings | None = None,
    sdk_metrics: str = "",
) -> AsyncIterator[int | None]:
    """Serve `/metrics`, `/health/live` and `/health/ready`; yields the port, None if unset.

    `name` is the process: drain, web or worker. `dependencies` decide its readiness. `sdk_metrics`
    is the URL of the Temporal SDK's own metrics, which are appended to ours.

    Raises:
        ComponentError: the port is taken.
    """
    if settings.port is None:
        yield None
        return

    collector = ProcessCollector(name)

    async def metrics(_: web.Request) -> web.Response:
        if readings:
            await readings.refresh()
        body = generate_latest(collector)
        if sdk_metrics:
            async with session.get(sdk_metrics) as response:
                body += await response.read()
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
            f"cannot listen on {host} port {port}: {error.strerror}; stop the process that uses "
            "it, or set LOGFLUME_TELEMETRY__HOST and LOGFLUME_TELEMETRY__PORT"
        ) from error


def _health(dependencies: dict[str, str]) -> web.Response:
    is_ok = all(result == "ok" for result in dependencies.values())
    body = {"status": "ok" if is_ok else "unavailable", "dependencies": dependencies}
    return web.json_response(body, status=200 if is_ok else 503)
