"""Writes and clears the whole content of logs."""

from collections.abc import AsyncIterator
from typing import Any

from litestar import Request, Response, post, put
from litestar.datastructures import State
from litestar.exceptions import SerializationException, ValidationException
from litestar.openapi.spec import OpenAPIMediaType, Operation, RequestBody, Schema
from litestar.openapi.spec.enums import OpenAPIFormat, OpenAPIType
from litestar.params import FromPath, FromQuery, JSONBody, RawBody
from litestar.response import Stream
from litestar.serialization import decode_json

from db import logs
from db.logs import WholeContent
from logflume.contract import parse_job_id, replace_halves
from logflume.domain import Log
from logflume.errors import InvalidMessage
from web.auth import TOKEN_ONLY
from web.content import SLICE_BYTES
from web.logs import log_response
from web.lookup import integer
from web.models import LogBody, LogToWrite, errors, log_body
from web.services import Injected, Services


class BytesIn(Operation):
    """An operation with a binary body, for the OpenAPI document."""

    def __post_init__(self) -> None:
        """Describe the body."""
        schema = Schema(type=OpenAPIType.STRING, format=OpenAPIFormat.BINARY)
        self.request_body = RequestBody({"application/octet-stream": OpenAPIMediaType(schema)})


class TextRequest(Request[object, object, State]):
    """A request whose JSON may contain half of a surrogate pair, which costs that character."""

    async def json(self) -> Any:
        """Decode the body."""
        try:
            return await super().json()
        except SerializationException:
            return decode_json(replace_halves(await self.body()))


@put(
    "/logs/{job_id:str}",
    summary="Write the whole content of a log",
    tags=["writing"],
    operation_class=BytesIn,
    responses=errors(400, 403, 413, 415, 423, 500),
    **TOKEN_ONLY,
)
async def put_log(
    services: Injected,
    job_id: FromPath[str],
    body: RawBody,
    removed_by: FromQuery[int | None] = None,
) -> Response[LogBody] | Stream:
    """Replace the log with these bytes; an empty body clears it, and `content` is null.

    The old text is deleted from parts and content at once, and from the archive when the workflow
    acts. With `removed_by` the log is marked as removed by that user. A log under legal hold is not
    changed.
    """
    whole = WholeContent(integer("job_id", job_id), body, _user(removed_by))
    [log] = await _write(services, [whole])
    if not body:
        return Response(log_body(log, None))
    return await log_response(log, len(body), _slices(body))


async def _slices(content: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(content), SLICE_BYTES):
        yield content[start : start + SLICE_BYTES]


@post(
    "/logs/multi",
    summary="Write the whole content of many logs",
    tags=["writing"],
    status_code=204,
    request_class=TextRequest,
    responses=errors(400, 403, 413, 415, 423, 500),
    **TOKEN_ONLY,
)
async def post_logs(services: Injected, data: JSONBody[list[LogToWrite]]) -> None:
    """Replace all of these logs, or none."""
    await _write(services, [_whole(index, log) for index, log in enumerate(data)])


def _whole(index: int, log: LogToWrite) -> WholeContent:
    try:
        job_id = parse_job_id(log.job_id)
    except InvalidMessage as error:
        raise ValidationException(f"[{index}].job_{error}") from None
    content = (log.content or "").encode("utf-8", "replace")
    return WholeContent(job_id, content, _user(log.removed_by, f"[{index}]."))


async def _write(services: Services, wholes: list[WholeContent]) -> list[Log]:
    async with services.connection() as connection:
        written = await logs.replace_contents(connection, wholes)
    for log in written:
        services.signaller.content_replaced(log.job_id)
    return written


def _user(removed_by: int | None, where: str = "") -> int | None:
    if removed_by is not None and not -(2**63) <= removed_by < 2**63:
        raise ValidationException(f"{where}removed_by: must fit in a signed 64-bit integer")
    return removed_by


ROUTES = [put_log, post_logs]
