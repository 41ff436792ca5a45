"""Writing and clearing whole logs."""

from litestar import post, put
from litestar.datastructures import State
from litestar.exceptions import ValidationException
from litestar.openapi.spec import OpenAPIMediaType, Operation, RequestBody, Schema
from litestar.openapi.spec.enums import OpenAPIFormat, OpenAPIType
from litestar.params import FromPath, FromQuery, JSONBody, RawBody

from db import logs, reading
from db.logs import WholeContent
from errors import RejectedPart
from web.auth import TOKEN_ONLY
from web.content import ACQUIRE_SECONDS
from web.find import find_content, integer
from web.models import LogBody, LogToWrite, errors, log_body
from wire import parse_job_id


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
    responses=errors(400, 403, 413, 500),
    **TOKEN_ONLY,
)
async def put_log(
    state: State, job_id: FromPath[str], body: RawBody, removed_by: FromQuery[int | None] = None
) -> LogBody:
    """Put these bytes in the place of all a log was; an empty body clears it.

    What was there is gone from parts, content and, as soon as its workflow acts, the archive. With
    `removed_by` the log counts as removed by that user.
    """
    whole = WholeContent(integer("job_id", job_id), body, _user(removed_by))
    await _write(state, [whole])
    async with state.pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
        log = await reading.find(connection, whole.job_id)
    return log_body(log, await (await find_content(state, log)).whole())


@post(
    "/logs/multi",
    summary="Write many logs' whole contents",
    tags=["writing"],
    status_code=204,
    responses=errors(400, 403, 413, 500),
    **TOKEN_ONLY,
)
async def post_logs(state: State, data: JSONBody[list[LogToWrite]]) -> None:
    """Write all of these logs, or none of them."""
    try:
        wholes = [
            WholeContent(
                parse_job_id(one.job_id), (one.content or "").encode(), _user(one.removed_by)
            )
            for one in data
        ]
    except RejectedPart as error:
        raise ValidationException(f"job_{error}") from None
    except UnicodeEncodeError:
        raise ValidationException("content: half of a surrogate pair") from None
    await _write(state, wholes)


async def _write(state: State, wholes: list[WholeContent]) -> None:
    async with state.pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
        await logs.replace_contents(connection, wholes)
    for whole in wholes:
        state.teller.content_replaced(whole.job_id)


def _user(removed_by: int | None) -> int | None:
    if removed_by is not None and not -(2**63) <= removed_by < 2**63:
        raise ValidationException("removed_by: beyond 64 bits")
    return removed_by


ROUTES = [put_log, post_logs]
