"""Uptime, liveness and readiness."""

import time
from datetime import UTC, datetime
from importlib.metadata import version

from litestar import Response, get

from db.connect import check_writable
from logflume.observability.health import Check, check_all
from web.models import HealthBody, UptimeBody
from web.services import Injected, Services
from workflows.client.connection import check_temporal


def dependencies(services: Services) -> dict[str, Check]:
    """What decides the readiness of the web."""
    return {
        "postgres": lambda: check_writable(services.pool),
        "rabbitmq": services.publisher.check,
        "archive": services.archive.check,
        "temporal": lambda: check_temporal(services.workflows.client),
    }


@get("/uptime", summary="Uptime of the service", tags=["health"])
async def uptime(services: Injected) -> UptimeBody:
    """Return the uptime in seconds, with a greeting."""
    seconds = time.monotonic() - services.started_at
    greeting = "hello, human 👋!"
    return UptimeBody(int(seconds), greeting, "PONG", datetime.now(UTC), version("logflume"))


@get("/health/live", summary="Liveness", tags=["health"])
async def live() -> HealthBody:
    """Return 200 while the process responds."""
    return HealthBody("ok", {})


@get("/health/ready", summary="Readiness", tags=["health"])
async def ready(services: Injected) -> Response[HealthBody]:
    """Check every dependency; 503 if one of them does not respond."""
    statuses = await check_all(dependencies(services))
    is_ready = all(status == "ok" for status in statuses.values())
    body = HealthBody("ok" if is_ready else "unavailable", statuses)
    return Response(body, status_code=200 if is_ready else 503)


ROUTES = [uptime, live, ready]
