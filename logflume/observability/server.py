"""The HTTP server of the drain and the worker: `/metrics`, `/health/live` and `/health/ready`.

It listens on the port of the setting `telemetry.port`. The web process has routes of its own.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import aiohttp
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from logflume.errors import ComponentError
from logflume.observability.health import CHECK_SECONDS, Ask, check_all
from logflume.observability.metrics import Process, Readings
from logflume.settings.groups import TelemetrySettings


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
