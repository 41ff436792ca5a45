"""Is the process alive, and can it do its work?"""

import asyncio
import time
from collections.abc import Awaitable
from datetime import UTC, datetime
from importlib.metadata import version

import asyncpg
from litestar import Response, get
from litestar.datastructures import State
from temporalio.service import RPCError

from db.connect import UNREACHABLE
from errors import LogflumeError
from web.models import HealthBody, UptimeBody

CHECK_SECONDS = 3


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
    found = dict(
        zip(
            ("postgres", "rabbitmq", "archive", "temporal"),
            await asyncio.gather(
                _check(state.pool.fetchval("SELECT 1")),
                _check(state.publisher.check()),
                _check(state.archive.check()),
                _check(state.temporal.count_workflows("WorkflowId = ''")),
            ),
            strict=True,
        )
    )
    is_ready = all(answer == "ok" for answer in found.values())
    body = HealthBody("ok" if is_ready else "unavailable", found)
    return Response(body, status_code=200 if is_ready else 503)


async def _check(call: Awaitable[object]) -> str:
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            await call
    except (LogflumeError, RPCError, RuntimeError, asyncpg.PostgresError, *UNREACHABLE) as error:
        return str(error) or type(error).__name__
    return "ok"


ROUTES = [uptime, live, ready]
