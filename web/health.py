"""Is the process alive, and can it do its work?"""

import time
from datetime import UTC, datetime
from importlib.metadata import version

from litestar import Response, get
from litestar.datastructures import State

from logflume.observability.health import check_all
from web.models import HealthBody, UptimeBody
from workflows.client import connection as temporal


@get("/uptime", summary="How long the service is up", tags=["health"])
async def uptime(state: State) -> UptimeBody:
    """Greet whoever asks."""
    seconds = time.monotonic() - state.started_at
    greeting = "hello, human 👋!"
    return UptimeBody(int(seconds), greeting, "PONG", datetime.now(UTC), version("logflume"))


@get("/health/live", summary="Is the process alive", tags=["health"])
async def live() -> HealthBody:
    """Answer as long as the process can."""
    return HealthBody("ok", {})


@get("/health/ready", summary="Are its dependencies reachable", tags=["health"])
async def ready(state: State) -> Response[HealthBody]:
    """Ask every dependency; 503 while one of them does not answer."""
    found = await check_all(
        {
            "postgres": lambda: state.pool.fetchval("SELECT 1"),
            "rabbitmq": state.publisher.check,
            "archive": state.archive.check,
            "temporal": lambda: temporal.check(state.temporal),
        }
    )
    is_ready = all(answer == "ok" for answer in found.values())
    body = HealthBody("ok" if is_ready else "unavailable", found)
    return Response(body, status_code=200 if is_ready else 503)


ROUTES = [uptime, live, ready]
