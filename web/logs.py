"""Reading a log, and where it is in its life."""

from typing import Annotated, Literal

from litestar import Router, get
from litestar.datastructures import State
from litestar.exceptions import ValidationException
from litestar.params import FromPath, FromQuery, QueryParameter
from litestar.response import Stream
from litestar.types import Guard

from db import logs
from domain import MAX_JOB_ID, Log
from web.content import ACQUIRE_SECONDS, stream, whole
from web.lifecycle import ask, lifecycle_body
from web.models import LifecycleBody, LogBody, log_body


def router(guard: Guard) -> Router:
    """Make the routes under `/logs`, behind the guard."""
    return Router(
        "/logs",
        route_handlers=[get_log, get_raw, get_lifecycle],
        guards=[guard],
        tags=["logs"],
        security=[{"token": []}],
    )


def _integer(name: str, text: str) -> int:
    # The length first: turning thousands of digits into a number is refused by Python itself.
    if text.isascii() and text.isdecimal() and len(text) < 20 and int(text) <= MAX_JOB_ID:
        return int(text)
    raise ValidationException(f"{name} must be an integer between 0 and {MAX_JOB_ID}")


async def _find(state: State, job_id: str) -> Log:
    number = _integer("job_id", job_id)
    async with state.pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
        return await logs.find(connection, number)


@get("/{log_id:str}", summary="A log with its content")
async def get_log(
    state: State,
    log_id: FromPath[str],
    *,
    by: FromQuery[Literal["job_id", "id"]] = "job_id",
    content: Annotated[bool, QueryParameter(description="false: leave the content out")] = True,
) -> LogBody:
    """Answer a log by its job's id, or by its own, wherever its bytes now are."""
    if by == "id":
        async with state.pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
            log = await logs.find_by_id(connection, _integer("id", log_id))
    else:
        log = await _find(state, log_id)
    return log_body(log, await whole(state.pool, state.archive, log) if content else None)


@get("/{job_id:str}/raw", summary="A log's bytes", media_type="text/plain")
async def get_raw(state: State, job_id: FromPath[str]) -> Stream:
    """Stream the bytes as they came, from the parts, the database or the archive."""
    log = await _find(state, job_id)
    length = str(log.content_bytes) if log.aggregated_at else None
    return Stream(
        stream(state.pool, state.archive, log),
        media_type="text/plain",
        headers={"Content-Length": length} if length else {},
    )


@get("/{job_id:str}/lifecycle", summary="Where a log is in its life")
async def get_lifecycle(state: State, job_id: FromPath[str]) -> LifecycleBody:
    """Answer the row's times and the workflow's own state."""
    log = await _find(state, job_id)
    told = await ask(state.temporal, log.job_id)
    settings = state.settings.temporal
    return lifecycle_body(log, told, settings.ui_url, settings.namespace)
