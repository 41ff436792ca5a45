"""Parts over HTTP: lists stored parts; publishes new ones to RabbitMQ."""

import asyncio
import hashlib
import hmac
from collections.abc import AsyncIterator
from typing import Annotated

import msgspec
import structlog
from aio_pika import Message
from litestar import MediaType, Response, get, post, put
from litestar.exceptions import HTTPException, PermissionDeniedException, ValidationException
from litestar.params import FromPath, JSONBody, QueryParameter
from litestar.response import Stream

from db.reading import PartList
from logflume import amqp, contract
from logflume.contract import ROUTING_KEY
from logflume.domain import LAST, WHOLE, Log
from logflume.errors import InvalidMessage
from web.auth import JOB, READERS, SIGNATURE, SIGNED, Access
from web.content import Content, groups
from web.logs import REVALIDATE
from web.lookup import check_maintenance, find_content, find_log, integer, retry_replaced, started
from web.metrics import PARTS_DROPPED, PARTS_RECEIVED
from web.models import PartBody, PartOfMany, PartsBody, PartToStore, errors
from web.receipts import HEADERS, receipt
from web.services import HttpRequest, Injected

log = structlog.get_logger()

# Limit of one call; runners send a few dozen.
MAX_PARTS = 5000
PUBLISH_BATCH = 500
CHECK_BATCH = 100
UNAVAILABLE = "Your log is temporarily unavailable"
AGGREGATED = "log aggregated"

After = Annotated[int | None, QueryParameter(description="only parts with a higher number")]
Numbers = Annotated[str | None, QueryParameter(description="only these numbers, as `1,2,3`")]
NumberList = Annotated[
    list[str] | None,
    QueryParameter(name="part_numbers[]", description="only these numbers, one or more each time"),
]
RequireAll = Annotated[
    bool, QueryParameter(description="`true`: a notice instead of the parts if any is missing")
]
WithContent = Annotated[bool, QueryParameter(description="`false`: omit the content")]


@get(
    "/log-parts/{job_id:str}",
    summary="List the parts of a log that is not aggregated",
    tags=["parts"],
    responses=errors(400, 403, 404, 409, 410, 500, 502),
    **READERS,
)
async def get_parts(  # noqa: PLR0913 - the contract's parameters
    services: Injected,
    job_id: FromPath[str],
    after: After = None,
    part_numbers: Numbers = None,
    number_list: NumberList = None,
    *,
    require_all: RequireAll = False,
    content: WithContent = True,
) -> Stream:
    """List parts by number; an aggregated log returns a notice instead."""
    await check_maintenance(services)
    listed = ",".join(filter(None, [part_numbers, *(number_list or [])]))
    wanted = _numbers(listed) if listed else None

    async def read() -> Stream:
        log = await find_log(services, job_id)
        found = await find_content(services, log, numbers=_range(after, wanted))
        parts = found.parts
        if parts is None:
            return _notice(log, AGGREGATED, final=True, content=content)
        chosen = [
            index
            for index, number in enumerate(parts.numbers)
            if wanted is None or max(number, 0) in wanted
        ]
        if require_all and not _is_complete([parts.numbers[i] for i in chosen], after, wanted):
            return _notice(log, UNAVAILABLE, final=False, content=content)
        pieces = _with_content(found, parts, chosen) if content else _bare(parts, chosen)
        return _stream(log, await started(pieces))

    return await retry_replaced(read)


def _range(after: int | None, wanted: set[int] | None) -> tuple[int, int]:
    """The first and last number to read; content written whole is listed as part 0."""
    first = max(min(wanted) if wanted else 0, 0 if after is None else min(after, LAST) + 1)
    return first if first > 0 else WHOLE, max(wanted) if wanted else LAST


def _numbers(text: str) -> set[int]:
    numbers = [number.strip() for number in text.split(",")]
    if not all(n.isascii() and n.isdecimal() and len(n) <= 10 for n in numbers):
        raise ValidationException(
            "part_numbers: must be numbers of at most 10 digits, separated by commas"
        )
    return {int(number) for number in numbers}


def _is_complete(chosen: list[int], after: int | None, wanted: set[int] | None) -> bool:
    if wanted is not None:
        return wanted <= {max(number, 0) for number in chosen}
    numbered = [number for number in chosen if number not in (WHOLE, LAST)]
    first = 0 if after is None else max(after + 1, 0)
    return numbered == [*range(first, first + len(numbered))]


def _notice(log: Log, text: str, *, final: bool, content: bool) -> Stream:
    body = PartBody(log.id, 0, final, text if content else msgspec.UNSET)
    return _stream(log, _one(msgspec.json.encode(body)))


async def _one(piece: bytes) -> AsyncIterator[bytes]:
    yield piece


def _stream(log: Log, pieces: AsyncIterator[bytes]) -> Stream:
    """The response with parts as encoded pieces: a log may be large."""

    async def body() -> AsyncIterator[bytes]:
        before, _, after = msgspec.json.encode(PartsBody(log.job_id, [])).rpartition(b"]")
        yield before
        separator = b""
        async for piece in pieces:
            if piece:
                yield separator + piece
                separator = b","
        yield b"]" + after

    return Stream(body(), media_type=MediaType.JSON, headers=REVALIDATE)


async def _with_content(found: Content, parts: PartList, chosen: list[int]) -> AsyncIterator[bytes]:
    for group in groups(parts, chosen):
        yield b",".join(
            msgspec.json.encode(
                PartBody(
                    part.id,
                    max(part.number, 0),
                    part.final,
                    part.content.decode("utf-8", "replace"),
                )
            )
            for part in await found.read_parts(parts, group)
        )


async def _bare(parts: PartList, chosen: list[int]) -> AsyncIterator[bytes]:
    for index in chosen:
        body = PartBody(parts.ids[index], max(parts.numbers[index], 0), bool(parts.final[index]))
        yield msgspec.json.encode(body)


@put(
    "/log-parts/{job_id:str}/{number:str}",
    summary="Store a part",
    tags=["parts"],
    status_code=204,
    response_headers=HEADERS,
    responses=errors(400, 403, 413, 415, 500),
    **JOB,
)
async def put_part(
    request: HttpRequest,
    services: Injected,
    job_id: FromPath[str],
    number: FromPath[str],
    data: JSONBody[PartToStore],
) -> Response[None]:
    """Publish a part like a runner does; 204 once RabbitMQ has confirmed it.

    Parts with the same `Bearer` token are one attempt: a runner gets a token for each run. After a
    final part with a `total` the response waits until drains have stored the attempt, at most 5 s.
    """
    job = integer("job_id", job_id)
    attempt = _attempt(services.access.runner_token(request))
    message = _message(job, number, data, attempt)
    await services.publisher.publish(message, ROUTING_KEY)
    PARTS_RECEIVED.inc()
    finals = [(job, attempt or "")] if data.total else []
    return Response(None, status_code=204, headers=await receipt(services, [job], finals))


@post(
    "/log-parts/multi",
    summary="Store parts of many logs",
    tags=["parts"],
    status_code=204,
    response_headers=HEADERS,
    responses=errors(400, 403, 413, 415, 500),
    **SIGNED,
)
async def post_parts(
    request: HttpRequest, services: Injected, data: JSONBody[list[PartOfMany]]
) -> Response[None]:
    """Publish the parts with a valid token, drop the others; 204 once RabbitMQ confirmed all.

    If one of them, and only one, is final with a `total`, the response waits as for a single part.
    """
    if len(data) > MAX_PARTS:
        raise HTTPException(f"more than {MAX_PARTS} parts in one request", status_code=413)
    _check_signature(request.headers.get("authorization", ""), data)
    accepted = [(part, message) async for part, message in _messages(services.access, data)]
    messages = [message for _, message in accepted]
    if dropped := len(data) - len(messages):
        PARTS_DROPPED.inc(dropped)
        log.warning("parts_dropped", count=dropped, reason="invalid token")
    for start in range(0, len(messages), PUBLISH_BATCH):
        batch = messages[start : start + PUBLISH_BATCH]
        await asyncio.gather(*(services.publisher.publish(one, ROUTING_KEY) for one in batch))
        PARTS_RECEIVED.inc(len(batch))
    finals = [
        (int(part.job_id), _attempt(part.tok or "") or "") for part, _ in accepted if part.total
    ]
    jobs = {int(part.job_id) for part, _ in accepted}
    return Response(None, status_code=204, headers=await receipt(services, jobs, finals))


async def _messages(
    access: Access, parts: list[PartOfMany]
) -> AsyncIterator[tuple[PartOfMany, Message]]:
    """Yield the parts whose own token is valid, with their messages.

    Raises:
        ValidationException: a part is malformed; the text gives its index and the field.
    """
    attempts: dict[tuple[str, str], str | None] = {}
    for index, part in enumerate(parts):
        token = (part.tok or "", str(part.job_id))
        if token not in attempts:
            attempts[token] = _attempt(token[0]) if access.is_for_job(*token) else None
        try:
            job_id = contract.parse_job_id(part.job_id)
            message = _message(job_id, part.number, part, attempts[token])
        except (InvalidMessage, ValidationException) as error:
            raise ValidationException(f"[{index}].{getattr(error, 'detail', error)}") from None
        if attempts[token] is not None:
            yield part, message
        if index % CHECK_BATCH == 0:
            await asyncio.sleep(0)  # let other requests run


def _check_signature(sent: str, parts: list[PartOfMany]) -> None:
    digest = hashlib.sha1("".join(part.tok or "" for part in parts).encode())  # noqa: S324
    if not hmac.compare_digest(sent.encode(), f"{SIGNATURE}{digest.hexdigest()}".encode()):
        raise PermissionDeniedException("the signature of the tokens is missing or wrong")


def _attempt(token: str) -> str | None:
    """Name the attempt of parts with this token: a runner gets a token for each run of a job."""
    return f"token:{hashlib.sha256(token.encode()).hexdigest()[:32]}" if token else None


def _message(
    job_id: int, number: int | str, part: PartToStore, attempt: str | None = None
) -> Message:
    """Make the message that a runner would publish.

    Raises:
        ValidationException: the part is malformed; the text names the field.
    """
    if part.type != "log_part":
        raise ValidationException("@type should be log_part")
    if part.encoding != "base64":
        raise ValidationException("invalid encoding: should be base64")
    if isinstance(number, str) and number.isascii() and number.isdecimal() and len(number) <= 10:
        number = int(number)
    try:
        contract.parse_base64(part.content)
        body = contract.PartMessage(
            id=job_id,
            number=contract.parse_number(number),
            log="".join(part.content.split()),
            uuid=attempt,
            encoding="base64",
            final=bool(part.final),
            total=part.total,
        )
        contract.check_total(body)
    except InvalidMessage as error:
        raise ValidationException(str(error).replace("log:", "content:")) from None
    return amqp.part_message(body)


ROUTES = [get_parts, put_part, post_parts]
