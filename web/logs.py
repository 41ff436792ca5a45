"""Logs as JSON: one log, lists of logs, and the lifecycle of a log."""

import codecs
from collections.abc import AsyncIterator, Callable
from typing import Annotated, Literal

import msgspec
from litestar import MediaType, Response, get, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath, FromQuery, QueryParameter
from litestar.response import Stream
from litestar.types import AnyCallable

from db import reading
from logflume.domain import MAX_JOB_ID, Log, Phase
from logflume.errors import ComponentError
from web.auth import READERS, TOKEN_ONLY
from web.content import SLICE_BYTES
from web.lifecycle import ASK_SECONDS, SIGNAL_SECONDS, lifecycle_body, list_body
from web.lookup import find_content, find_log, find_whole, retry_replaced, started
from web.models import LifecycleBody, ListBody, LogBody, LogIdBody, errors, log_body
from web.services import HttpRequest, Injected

MAX_LISTED = 200
Decorator = Callable[[AnyCallable], HTTPRouteHandler]

# Browsers must revalidate before they show a log again: it may have been removed.
REVALIDATE = {"Cache-Control": "private, no-cache"}

Limit = Annotated[int, QueryParameter(ge=1, le=MAX_LISTED, description="logs per page")]
Before = Annotated[
    int, QueryParameter(ge=0, le=MAX_JOB_ID, description="`next` of the previous page")
]
WithContent = Annotated[bool, QueryParameter(description="`false`: omit the content")]
OfAttempt = Annotated[
    str | None,
    QueryParameter(description="uuid of an earlier attempt; default: the attempt that is the log"),
]


def get_of_log(path: str, summary: str, *statuses: int) -> Decorator:
    """A GET route below `/logs/{job_id}`, for readers; `statuses` are its other errors."""
    responses = errors(400, 403, 404, *statuses, 500)
    path = f"/logs/{{job_id:str}}{path}"
    return get(path, summary=summary, tags=["logs"], responses=responses, **READERS)


@get("/logs", summary="List recent logs", tags=["logs"], responses=errors(400, 403, 500), **READERS)
async def list_logs(
    services: Injected,
    phase: FromQuery[Phase | None] = None,
    before: Before = MAX_JOB_ID,
    limit: Limit = 50,
) -> ListBody:
    """List the newest logs, or the newest ones in a phase.

    With `phase` the list comes from Temporal, which records `receiving`, `archiving`, `verified`,
    `stuck` and `done`.
    """
    if phase:
        phases = await services.workflows.newest_in_phase(phase, limit, ASK_SECONDS)
        async with services.connection() as connection:
            rows = await reading.find_many(connection, list(phases))
        return list_body([rows[id_] for id_ in phases if id_ in rows], phases, limit=None)
    async with services.connection() as connection:
        logs = await reading.newest(connection, before, limit)
    try:
        phases = await services.workflows.phases([log.job_id for log in logs], ASK_SECONDS)
    except ComponentError:  # the rows are enough
        phases = {}
    return list_body(logs, phases, limit=limit)


@get_of_log("", "Get a log with its content", 409, 410, 502)
async def get_log(
    services: Injected,
    job_id: FromPath[str],
    *,
    by: FromQuery[Literal["job_id", "id"]] = "job_id",
    content: WithContent = True,
    attempt: OfAttempt = None,
) -> Response[LogBody] | Stream:
    """Return a log by job id or log id, from its parts, the database or the archive.

    `content` is null if no part arrived yet, the log was cleared, or retention deleted the text.
    """

    async def read() -> Response[LogBody] | Stream:
        if not content or attempt is not None:
            log, whole = await find_log(services, job_id, by=by), None
        else:
            log, whole = await find_whole(services, job_id, by, SLICE_BYTES)
        is_whole = whole is not None and (whole or log.aggregated_at)
        if not content or log.expired_at or is_whole:
            return Response(log_body(log, whole), headers=REVALIDATE)
        found = await find_content(services, log, attempt)
        if found.parts is not None and not found.parts:
            return Response(log_body(found.log, None), headers=REVALIDATE)
        return await log_response(found.log, found.size, found.read())

    return await retry_replaced(read)


async def log_response(
    log: Log, size: int, pieces: AsyncIterator[bytes]
) -> Response[LogBody] | Stream:
    """Build the response for a log from the pieces of its content; large content is streamed."""
    if size <= SLICE_BYTES:
        content = b"".join([piece async for piece in pieces])
        return Response(log_body(log, content), headers=REVALIDATE)
    body = _as_json(log, await started(pieces))
    return Stream(body, media_type=MediaType.JSON, headers=REVALIDATE)


async def _as_json(log: Log, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    before, empty, after = msgspec.json.encode(log_body(log, b"")).partition(b'"content":"')
    yield before + empty
    decode = codecs.getincrementaldecoder("utf-8")("replace").decode
    async for piece in pieces:
        yield msgspec.json.encode(decode(piece))[1:-1]
    yield msgspec.json.encode(decode(b"", final=True))[1:-1] + after


@get_of_log("/id", "Get the log id of a job")
async def get_id(services: Injected, job_id: FromPath[str]) -> LogIdBody:
    """Return the log id of a job."""
    return LogIdBody(id=(await find_log(services, job_id)).id)


@get_of_log("/lifecycle", "Get the lifecycle of a log")
async def get_lifecycle(
    services: Injected, request: HttpRequest, job_id: FromPath[str]
) -> LifecycleBody:
    """Return the timestamps of the log, its attempts and the state of its workflow.

    `last_error` says why a step is being retried. Without the token `last_error`, `run_id` and
    `temporal_ui_url` are empty.
    """
    log = await find_log(services, job_id)
    async with services.connection() as connection:
        attempts = await reading.attempts(connection, log.id)
    run = await services.workflows.latest_run(log.job_id, ASK_SECONDS)
    body = lifecycle_body(log, attempts, run, services.settings.temporal)
    if not services.access.has_token(request):
        body.last_error, body.run_id, body.temporal_ui_url = "", None, None
    return body


@post(
    "/logs/{job_id:str}/archive",
    summary="Archive a log again",
    tags=["logs"],
    status_code=202,
    responses=errors(400, 403, 404, 500),
    **TOKEN_ONLY,
)
async def archive_again(services: Injected, job_id: FromPath[str]) -> None:
    """Ask the workflow to archive the log again; a stuck workflow resumes."""
    log = await find_log(services, job_id)
    await services.workflows.archive_again(log.job_id, SIGNAL_SECONDS)


ROUTES = [list_logs, get_log, get_id, get_lifecycle, archive_again]
