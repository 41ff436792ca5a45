"""Parts of logs over HTTP: out by number, in by way of RabbitMQ."""

import asyncio
import hashlib
import hmac
from collections.abc import AsyncIterator
from typing import Annotated

import msgspec
import structlog
from aio_pika import Message
from litestar import MediaType, get, post, put
from litestar.exceptions import HTTPException, PermissionDeniedException, ValidationException
from litestar.params import FromPath, JSONBody, QueryParameter
from litestar.response import Stream

from db.reading import PartList
from logflume import amqp, contract
from logflume.contract import ROUTING_KEY
from logflume.domain import LAST, WHOLE, Log
from logflume.errors import InvalidMessage
from web.auth import JOB, OWN, READERS, Access
from web.content import Content, groups
from web.logs import REVALIDATE
from web.lookup import check_maintenance, find_content, find_log, integer, settled, started
from web.metrics import PARTS_DROPPED, PARTS_RECEIVED
from web.models import PartBody, PartOfMany, PartsBody, PartToStore, errors
from web.services import HttpRequest, Injected

log = structlog.get_logger()

# Of the signature over all tokens; it protects nothing, each part's own token does.
SIGNATURE = "token sig:"
# What one call may bring; a runner sends some dozens.
MOST_PARTS = 5000
PUBLISHED_AT_ONCE = 500
CHECKED_AT_ONCE = 100
UNAVAILABLE = "Your log is temporarily unavailable"
AGGREGATED = "log aggregated"

After = Annotated[int | None, QueryParameter(description="only parts with higher numbers")]
Numbers = Annotated[str | None, QueryParameter(description="only these, as `1,2,3`")]
All = Annotated[bool, QueryParameter(description="true: all of `part_numbers`, or a notice")]
WithContent = Annotated[bool, QueryParameter(description="false: leave the contents out")]


@get(
    "/log-parts/{job_id:str}",
    summary="Parts of a log that is not aggregated yet",
    tags=["parts"],
    responses=errors(400, 403, 404, 410, 500),
    **READERS,
)
async def get_parts(  # noqa: PLR0913 - they are the contract's
    services: Injected,
    job_id: FromPath[str],
    after: After = None,
    part_numbers: Numbers = None,
    *,
    require_all: All = False,
    content: WithContent = True,
) -> Stream:
    """Answer parts in the order of their numbers."""
    await check_maintenance(services)
    wanted = _numbers(part_numbers) if part_numbers else None

    async def read() -> Stream:
        log = await find_log(services, job_id)
        found = await find_content(services, log)
        listed = found.parts
        if listed is None or (listed and listed.numbers[0] == WHOLE):
            return _notice(log, AGGREGATED, final=True, content=content)
        chosen = [
            place
            for place, number in enumerate(listed.numbers)
            if (after is None or number > after) and (wanted is None or number in wanted)
        ]
        if require_all and not _all_there([listed.numbers[p] for p in chosen], after, wanted):
            return _notice(log, UNAVAILABLE, final=False, content=content)
        pieces = _contents(found, listed, chosen) if content else _names(listed, chosen)
        return _stream(log, await started(pieces))

    return await settled(read)


def _numbers(text: str) -> set[int]:
    numbers = [number.strip() for number in text.split(",")]
    if not all(n.isascii() and n.isdecimal() and len(n) <= 10 for n in numbers):
        raise ValidationException("part_numbers: not numbers with commas between them")
    return {int(number) for number in numbers}


def _all_there(chosen: list[int], after: int | None, wanted: set[int] | None) -> bool:
    if wanted is not None:
        return wanted <= {*chosen}
    numbered = [number for number in chosen if number != LAST]
    first = 0 if after is None else after + 1
    return numbered == [*range(first, first + len(numbered))]


def _notice(log: Log, text: str, *, final: bool, content: bool) -> Stream:
    body = PartBody(log.id, 0, final, text if content else msgspec.UNSET)
    return _stream(log, _one(msgspec.json.encode(body)))


async def _one(piece: bytes) -> AsyncIterator[bytes]:
    yield piece


def _stream(log: Log, pieces: AsyncIterator[bytes]) -> Stream:
    """The answer, whose parts come in pieces: a log may be large."""

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


async def _contents(found: Content, listed: PartList, chosen: list[int]) -> AsyncIterator[bytes]:
    for which in groups(listed, chosen):
        parts = await found.read_parts(listed, which)
        yield b",".join(
            msgspec.json.encode(
                PartBody(part.id, part.number, part.final, part.content.decode("utf-8", "replace"))
            )
            for part in parts
        )


async def _names(listed: PartList, chosen: list[int]) -> AsyncIterator[bytes]:
    for place in chosen:
        body = PartBody(listed.ids[place], listed.numbers[place], bool(listed.final[place]))
        yield msgspec.json.encode(body)


@put(
    "/log-parts/{job_id:str}/{number:str}",
    summary="Store a part",
    tags=["parts"],
    status_code=204,
    responses=errors(400, 403, 413, 500),
    **JOB,
)
async def put_part(
    services: Injected, job_id: FromPath[str], number: FromPath[str], data: JSONBody[PartToStore]
) -> None:
    """Answer once RabbitMQ has the part safe: it takes the same way as those of the runners."""
    message = _message(integer("job_id", job_id), number, data)
    await check_maintenance(services)
    await services.publisher.publish(message, ROUTING_KEY)
    PARTS_RECEIVED.inc()


@post(
    "/log-parts/multi",
    summary="Store parts of many logs",
    tags=["parts"],
    status_code=204,
    responses=errors(400, 403, 413, 500),
    security=[{"signature": []}],
    **OWN,
)
async def post_parts(
    request: HttpRequest, services: Injected, data: JSONBody[list[PartOfMany]]
) -> None:
    """Answer once RabbitMQ has the parts safe; those without a good token are dropped."""
    if len(data) > MOST_PARTS:
        raise HTTPException(f"more than {MOST_PARTS} parts at once", status_code=413)
    _check_signature(request.headers.get("authorization", ""), data)
    await check_maintenance(services)
    messages = [message async for message in _messages(services.access, data)]
    if dropped := len(data) - len(messages):
        PARTS_DROPPED.inc(dropped)
        log.warning("parts_dropped", count=dropped, reason="their tokens are not good")
    for start in range(0, len(messages), PUBLISHED_AT_ONCE):
        some = messages[start : start + PUBLISHED_AT_ONCE]
        await asyncio.gather(*(services.publisher.publish(one, ROUTING_KEY) for one in some))
        PARTS_RECEIVED.inc(len(some))


async def _messages(access: Access, parts: list[PartOfMany]) -> AsyncIterator[Message]:
    """The messages of those parts whose own token is good.

    Raises:
        ValidationException: one of the parts is malformed; names it and the field.
    """
    is_good: dict[tuple[str, str], bool] = {}
    for place, part in enumerate(parts):
        try:
            message = _message(contract.parse_job_id(part.job_id), part.number, part)
        except (InvalidMessage, ValidationException) as error:
            raise ValidationException(f"[{place}].{getattr(error, 'detail', error)}") from None
        token = (part.tok or "", str(part.job_id))
        if token not in is_good:
            is_good[token] = access.is_for_job(*token)
        if is_good[token]:
            yield message
        if place % CHECKED_AT_ONCE == 0:
            await asyncio.sleep(0)  # others are served too


def _check_signature(sent: str, parts: list[PartOfMany]) -> None:
    digest = hashlib.sha1("".join(part.tok or "" for part in parts).encode())  # noqa: S324
    if not hmac.compare_digest(sent.encode(), f"{SIGNATURE}{digest.hexdigest()}".encode()):
        raise PermissionDeniedException("the signature over all tokens is missing or wrong")


def _message(job_id: int, number: int | str, part: PartToStore) -> Message:
    """Make the message that a runner would have sent.

    Raises:
        ValidationException: the part is malformed; names the field.
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
            encoding="base64",
            final=bool(part.final),
        )
    except InvalidMessage as error:
        raise ValidationException(str(error).replace("log:", "content:")) from None
    return amqp.part_message(body)


ROUTES = [get_parts, put_part, post_parts]
