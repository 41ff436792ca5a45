"""Is the process alive, and can it do its work?"""

import time
from datetime import UTC, datetime
from importlib.metadata import version

from litestar import Response, get

from logflume.observability.health import check_all
from web.models import HealthBody, UptimeBody
from web.services import Injected
from workflows.client import connection as temporal


@get("/uptime", summary="How long the service is up", tags=["health"])
async def uptime(services: Injected) -> UptimeBody:
    """Greet whoever asks."""
    seconds = time.monotonic() - services.started_at
    greeting = "hello, human 👋!"
    return UptimeBody(int(seconds), greeting, "PONG", datetime.now(UTC), version("logflume"))


@get("/health/live", summary="Is the process alive", tags=["health"])
async def live() -> HealthBody:
    """Answer as long as the process can."""
    return HealthBody("ok", {})


@get("/health/ready", summary="Are its dependencies reachable", tags=["health"])
async def ready(services: Injected) -> Response[HealthBody]:
    """Ask every dependency; 503 while one of them does not answer."""
    found = await check_all(
        {
            "postgres": lambda: services.pool.fetchval("SELECT 1"),
            "rabbitmq": services.publisher.check,
            "archive": services.archive.check,
            "temporal": lambda: temporal.check(services.workflows.client),
        }
    )
    is_ready = all(answer == "ok" for answer in found.values())
    body = HealthBody("ok" if is_ready else "unavailable", found)
    return Response(body, status_code=200 if is_ready else 503)


ROUTES = [uptime, live, ready]
