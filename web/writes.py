"""Writing and clearing whole logs."""

from collections.abc import AsyncIterator

from litestar import Response, post, put
from litestar.exceptions import ValidationException
from litestar.openapi.spec import OpenAPIMediaType, Operation, RequestBody, Schema
from litestar.openapi.spec.enums import OpenAPIFormat, OpenAPIType
from litestar.params import FromPath, FromQuery, JSONBody, RawBody
from litestar.response import Stream

from db import logs
from db.logs import WholeContent
from logflume.contract import parse_job_id
from logflume.domain import Log
from logflume.errors import InvalidMessage
from web.auth import TOKEN_ONLY
from web.content import ACQUIRE_SECONDS, SLICE_BYTES
from web.logs import log_answer
from web.lookup import integer
from web.models import LogBody, LogToWrite, errors
from web.services import Injected, Services


class BytesIn(Operation):
    """An operation whose body is bytes, in the OpenAPI document."""

    def __post_init__(self) -> None:
        """Describe the body."""
        schema = Schema(type=OpenAPIType.STRING, format=OpenAPIFormat.BINARY)
        self.request_body = RequestBody({"application/octet-stream": OpenAPIMediaType(schema)})


@put(
    "/logs/{job_id:str}",
    summary="Write a log's whole content",
    tags=["writing"],
    operation_class=BytesIn,
    responses=errors(400, 403, 413, 423, 500),
    **TOKEN_ONLY,
)
async def put_log(
    services: Injected,
    job_id: FromPath[str],
    body: RawBody,
    removed_by: FromQuery[int | None] = None,
) -> Response[LogBody] | Stream:
    """Put these bytes in the place of all a log was; an empty body clears it.

    What was there is gone from parts, content and, as soon as its workflow acts, the archive. With
    `removed_by` the log counts as removed by that user. One under legal hold stays as it is.
    """
    whole = WholeContent(integer("job_id", job_id), body, _user(removed_by))
    [log] = await _write(services, [whole])
    return await log_answer(log, len(body), _slices(body))


async def _slices(content: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(content), SLICE_BYTES):
        yield content[start : start + SLICE_BYTES]


@post(
    "/logs/multi",
    summary="Write many logs' whole contents",
    tags=["writing"],
    status_code=204,
    responses=errors(400, 403, 413, 423, 500),
    **TOKEN_ONLY,
)
async def post_logs(services: Injected, data: JSONBody[list[LogToWrite]]) -> None:
    """Write all of these logs, or none of them."""
    await _write(services, [_whole(place, log) for place, log in enumerate(data)])


def _whole(place: int, log: LogToWrite) -> WholeContent:
    try:
        job_id = parse_job_id(log.job_id)
    except InvalidMessage as error:
        raise ValidationException(f"[{place}].job_{error}") from None
    try:
        return WholeContent(job_id, (log.content or "").encode(), _user(log.removed_by))
    except UnicodeEncodeError:
        raise ValidationException(f"[{place}].content: half of a surrogate pair") from None


async def _write(services: Services, wholes: list[WholeContent]) -> list[Log]:
    async with services.pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
        written = await logs.replace_contents(connection, wholes)
    for log in written:
        services.teller.content_replaced(log.job_id)
    return written


def _user(removed_by: int | None) -> int | None:
    if removed_by is not None and not -(2**63) <= removed_by < 2**63:
        raise ValidationException("removed_by: beyond 64 bits")
    return removed_by


ROUTES = [put_log, post_logs]
