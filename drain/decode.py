"""From a message's bytes to a part, or a reason why not. The rules are the wire contract's."""

import json
from datetime import UTC, datetime

import msgspec

from logflume import contract
from logflume.domain import Part
from logflume.errors import RejectedPart

MAX_UUID = 255


class _Message(msgspec.Struct):
    id: int | str
    log: str
    number: int | str
    uuid: str | None = None
    final: bool | None = None
    encoding: str | None = None
    # Whatever it holds must not cost the part.
    meta: msgspec.Raw = msgspec.Raw()


class _Meta(msgspec.Struct):
    queued_at: datetime | None = None


_decoder = msgspec.json.Decoder(_Message)
_meta_decoder = msgspec.json.Decoder(_Meta)


def decode(body: bytes, published_at: datetime | None, received_at: datetime) -> Part:
    """Decode one message; times are aware, in UTC.

    Raises:
        RejectedPart: the text says which field is wrong, and never quotes the log.
    """
    message = _parse(body)
    return Part(
        job_id=contract.parse_job_id(message.id),
        attempt=_uuid(message.uuid),
        number=contract.parse_number(message.number),
        content=_content(message),
        final=bool(message.final),
        published_at=published_at,
        received_at=received_at,
        queued_at=_queued_at(message.meta) if message.meta else None,
    )


def _parse(body: bytes) -> _Message:
    try:
        return _decoder.decode(body)
    except UnicodeDecodeError:
        return _parse_raw(body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise RejectedPart(str(error)) from None


def _parse_raw(body: bytes) -> _Message:
    """A runner may cut a character in two and send the raw halves: they survive as they came."""
    try:
        found = json.loads(body.decode("utf-8", "surrogateescape"))
        if isinstance(found, dict):
            found.pop("meta", None)  # only JSON as it came can be raw
        return msgspec.convert(found, _Message)
    except (ValueError, RecursionError) as error:  # both libraries' errors are ValueErrors
        raise RejectedPart(f"neither UTF-8 nor JSON around raw bytes: {error}") from None


def _uuid(value: str | None) -> str:
    # NUL is the one character that Postgres cannot hold in text.
    if value and (len(value) > MAX_UUID or "\0" in value or not _is_text(value)):
        raise RejectedPart(f"uuid: not plain text of at most {MAX_UUID} characters")
    return value or ""


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _content(message: _Message) -> bytes:
    if message.encoding is None:
        try:
            return message.log.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:
            raise RejectedPart("log: half of a surrogate pair") from None
    if message.encoding != "base64":
        raise RejectedPart("encoding: only 'base64' is known")
    return contract.parse_base64(message.log)


def _queued_at(meta: msgspec.Raw) -> datetime | None:
    """When the job was queued, as far as that can be read: only figures depend on it."""
    try:
        return utc(_meta_decoder.decode(meta).queued_at)
    except (ValueError, RecursionError):
        return None


def utc(time: datetime | None) -> datetime | None:
    """Times come without a zone, or with one; all are UTC."""
    if time is None or time.tzinfo is not None:
        return time
    return time.replace(tzinfo=UTC)
