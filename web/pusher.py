"""What Pusher and its subscribers ask of us: who watches a job, and who may."""

import re
from collections.abc import Iterable, Iterator
from typing import Annotated, Any

import msgspec
from litestar import post
from litestar.enums import RequestEncodingType
from litestar.exceptions import (
    HTTPException,
    NotAuthorizedException,
    PermissionDeniedException,
    ValidationException,
)
from litestar.params import Body, HeaderParameter, RawBody

from db import notify
from logflume.domain import MAX_JOB_ID
from logflume.pusher import make_signer
from web.auth import OWN
from web.content import ACQUIRE_SECONDS
from web.models import SubscriptionBody, errors
from web.services import HttpRequest, Injected, Services

CHANNEL = re.compile(r"(private-)?job-(0|[1-9][0-9]{0,18})")
OCCUPIED, VACATED = "channel_occupied", "channel_vacated"


class Subscription(msgspec.Struct):
    """What a Pusher client sends to be let into a private channel."""

    socket_id: str
    channel_name: str


class _Event(msgspec.Struct):
    name: str = ""
    channel: str = ""


class _Webhook(msgspec.Struct):
    events: list[_Event]


@post(
    "/pusher/existence",
    status_code=204,
    summary="Pusher's webhook: channels are occupied or vacated",
    tags=["pusher"],
    responses=errors(400, 401, 413, 500),
    **OWN,
)
async def existence(
    services: Injected,
    body: RawBody,
    key: Annotated[str, HeaderParameter(name="X-Pusher-Key")] = "",
    signature: Annotated[str, HeaderParameter(name="X-Pusher-Signature")] = "",
) -> None:
    """Mark, for 6 hours, jobs whose channel somebody watches; take marks away again."""
    events = _signed_events(_signer(services), key, signature, body)
    async with (
        services.pool.acquire(timeout=ACQUIRE_SECONDS) as connection,
        connection.transaction(),
    ):
        for event, job_id in _marks(events, secure=services.settings.pusher.secure):
            mark = notify.occupy if event == OCCUPIED else notify.vacate
            await mark(connection, job_id)


@post(
    "/pusher/auth",
    status_code=200,
    summary="Let a subscriber into a job's private channel",
    tags=["pusher"],
    security=[{"token": []}, {"share": []}],
    responses=errors(400, 403, 413, 500),
    **OWN,
)
async def authorize(
    request: HttpRequest,
    services: Injected,
    data: Annotated[Subscription, Body(media_type=RequestEncodingType.URL_ENCODED)],
) -> SubscriptionBody:
    """Sign a subscription of `private-job-N` for who may read the log of job N."""
    signer = _signer(services)
    found = CHANNEL.fullmatch(data.channel_name)
    if found is None or not found[1]:
        raise PermissionDeniedException("this is no private channel of a job")
    if not services.access.may_read(request, found[2]):
        raise PermissionDeniedException("the token is missing or wrong")
    try:
        return SubscriptionBody(signer.authenticate(data.channel_name, data.socket_id)["auth"])
    except ValueError as error:
        raise ValidationException(str(error)) from error


def _signer(services: Services) -> Any:
    signer = make_signer(services.settings.pusher)
    if signer is None:
        raise HTTPException("pusher is not set", status_code=500)
    return signer


def _signed_events(signer: Any, key: str, signature: str, body: bytes) -> list[_Event]:
    try:
        # The client compares signatures that are ASCII, of bodies that are text.
        found = signature.isascii() and signer.validate_webhook(key, signature, body)
    except UnicodeDecodeError:
        found = None
    except (AttributeError, TypeError, OverflowError, RecursionError) as error:
        # It looks into what it found to be signed, whatever that is.
        raise ValidationException("this is no webhook of Pusher's") from error
    if not found:
        raise NotAuthorizedException("the signature is missing, wrong or too old")
    try:
        return msgspec.convert(found, _Webhook).events
    except (msgspec.ValidationError, UnicodeEncodeError) as error:  # half of a surrogate pair
        raise ValidationException(f"this is no webhook of Pusher's: {error}") from error


def _marks(events: Iterable[_Event], *, secure: bool) -> Iterator[tuple[str, int]]:
    for event in events:
        found = CHANNEL.fullmatch(event.channel)
        if event.name not in (OCCUPIED, VACATED) or found is None or int(found[2]) > MAX_JOB_ID:
            continue
        # Everybody may enter and leave a public channel: where private ones are in use, that must
        # not stop what goes to them.
        if found[1] or not secure:
            yield event.name, int(found[2])


ROUTES = [existence, authorize]
