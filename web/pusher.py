"""Pusher webhooks, and access to private channels."""

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
from web.auth import BY_HANDLER
from web.models import SubscriptionBody, errors
from web.services import HttpRequest, Injected, Services

CHANNEL = re.compile(r"(private-)?job-(0|[1-9][0-9]{0,18})")
# Fields and channel names are short; parsing a form costs much.
FORM_BYTES = 4096
OCCUPIED, VACATED = "channel_occupied", "channel_vacated"


class Subscription(msgspec.Struct):
    """The form in which a Pusher client requests access to a private channel."""

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
    summary="Receive webhooks from Pusher",
    tags=["pusher"],
    responses=errors(400, 401, 413, 415, 500),
    **BY_HANDLER,
)
async def existence(
    services: Injected,
    body: RawBody,
    key: Annotated[str, HeaderParameter(name="X-Pusher-Key")] = "",
    signature: Annotated[str, HeaderParameter(name="X-Pusher-Signature")] = "",
) -> None:
    """Mark jobs with an occupied channel as watched for 6 hours; remove the mark when vacated."""
    events = _signed_events(_signer(services), key, signature, body)
    async with services.connection() as connection, connection.transaction():
        for event, job_id in _job_events(events, secure=services.settings.pusher.secure):
            update = notify.occupy if event == OCCUPIED else notify.vacate
            await update(connection, job_id)


@post(
    "/pusher/auth",
    status_code=200,
    request_max_body_size=FORM_BYTES,
    summary="Authorize a subscription to a private channel",
    tags=["pusher"],
    security=[{"token": []}, {"share": []}],
    responses=errors(400, 403, 413, 415, 500),
    **BY_HANDLER,
)
async def authorize(
    request: HttpRequest,
    services: Injected,
    data: Annotated[Subscription, Body(media_type=RequestEncodingType.URL_ENCODED)],
) -> SubscriptionBody:
    """Sign a subscription to `private-job-N` if the caller may read the log of job N."""
    signer = _signer(services)
    channel = CHANNEL.fullmatch(data.channel_name)
    if channel is None or not channel[1]:
        raise PermissionDeniedException("channel_name is not the private channel of a job")
    if not services.access.may_read(request, channel[2]):
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
        # The library can only compare ASCII signatures of UTF-8 bodies.
        webhook = signature.isascii() and signer.validate_webhook(key, signature, body)
    except UnicodeDecodeError:
        webhook = None
    except (AttributeError, TypeError, OverflowError, RecursionError) as error:
        # The library reads fields of a signed body without checking its type.
        raise ValidationException("the body is not a Pusher webhook") from error
    if not webhook:
        raise NotAuthorizedException("the signature is missing, wrong or expired")
    try:
        return msgspec.convert(webhook, _Webhook).events
    except (msgspec.ValidationError, UnicodeEncodeError) as error:  # unpaired surrogate
        raise ValidationException(f"the body is not a Pusher webhook: {error}") from error


def _job_events(events: Iterable[_Event], *, secure: bool) -> Iterator[tuple[str, int]]:
    for event in events:
        channel = CHANNEL.fullmatch(event.channel)
        if event.name not in (OCCUPIED, VACATED) or not channel or int(channel[2]) > MAX_JOB_ID:
            continue
        # Anyone can join and leave a public channel; that must not stop events to a private one.
        if channel[1] or not secure:
            yield event.name, int(channel[2])


ROUTES = [existence, authorize]
