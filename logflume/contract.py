"""The wire contract of parts: names of exchanges and queues, the JSON of a message, its limits."""

import base64
import binascii
import json
import re
from datetime import UTC, datetime
from typing import Any, Self

import msgspec

from logflume.domain import LAST, MAX_JOB_ID, Part, Total
from logflume.errors import InvalidMessage

EXCHANGE = "reporting"
QUEUE = "reporting.jobs.logs"
ROUTING_KEY = QUEUE
SHARDED_EXCHANGE = "reporting.jobs.logs_sharded"
DEAD_LETTER_QUEUE = "reporting.jobs.logs.rejected"
CONTROL_EXCHANGE = "reporting.jobs.logs.control"
MESSAGE_TYPE = "job:test:log"
CONTENT_TYPE = "application/json"
MAX_UUID = 255


class PartMessage(msgspec.Struct, omit_defaults=True):
    """A part as the JSON body of an AMQP message, for writing and reading."""

    id: int | str
    log: str
    number: int | str
    uuid: str | None = None
    final: bool | None = None
    encoding: str | None = None
    total: Total | None = None
    # Raw, because an unreadable `meta` must not invalidate the part.
    meta: msgspec.Raw = msgspec.Raw()

    @classmethod
    def of(  # noqa: PLR0913 - the contract's fields
        cls,
        job_id: int,
        number: int,
        content: bytes,
        *,
        uuid: str | None = None,
        final: bool = False,
        meta: dict[str, Any] | None = None,
    ) -> Self:
        """Make the message of a part: UTF-8 as text, other bytes as base64."""
        try:
            log, encoding = content.decode(), None
        except UnicodeDecodeError:
            log, encoding = base64.b64encode(content).decode(), "base64"
        message = cls(job_id, log, number, uuid, final, encoding)
        if meta is not None:
            message.meta = msgspec.Raw(msgspec.json.encode(meta))
        return message

    def encode(self) -> bytes:
        """The body as JSON."""
        return msgspec.json.encode(self)


class _Meta(msgspec.Struct):
    queued_at: datetime | None = None


# The escapes of a JSON text one by one; the group is half of a surrogate pair without the other.
_ESCAPE = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    rb"|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)
# Control characters and lone surrogates.
_NOT_TEXT = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_decoder = msgspec.json.Decoder(PartMessage)
_meta_decoder = msgspec.json.Decoder(_Meta)


def decode(body: bytes, published_at: datetime | None, received_at: datetime) -> Part:
    """Decode the body of a message; times are aware, in UTC.

    Raises:
        InvalidMessage: the text names the field that is wrong, and never quotes the log.
    """
    message = _parse(body)
    check_total(message)
    return Part(
        job_id=parse_job_id(message.id),
        attempt=_uuid(message.uuid),
        number=parse_number(message.number),
        content=_content(message),
        final=bool(message.final),
        published_at=published_at,
        received_at=received_at,
        queued_at=_queued_at(message.meta) if message.meta else None,
        total=message.total,
    )


def parse_job_id(value: int | str) -> int:
    """Parse a job id: a number or its decimal digits.

    Raises:
        InvalidMessage: it is neither, or does not fit 63 bits.
    """
    if isinstance(value, str):
        if not (value.isascii() and value.isdecimal() and len(value) <= len(str(MAX_JOB_ID))):
            raise InvalidMessage("id: not a decimal number of at most 19 digits")
        value = int(value)
    if not 0 <= value <= MAX_JOB_ID:
        raise InvalidMessage(f"id: not between 0 and {MAX_JOB_ID}")
    return value


def parse_number(value: int | str) -> int:
    """Parse a part's number; the text `last` is 2,147,483,647.

    Raises:
        InvalidMessage: it is any other text, or out of range.
    """
    if value == "last":
        return LAST
    if isinstance(value, str) or not 0 <= value <= LAST:
        raise InvalidMessage(f"number: neither 'last' nor a number between 0 and {LAST}")
    return value


def check_total(message: PartMessage) -> None:
    """Check that a total is on a final part with a number.

    Raises:
        InvalidMessage: it is on another part.
    """
    if message.total and not (message.final and parse_number(message.number) < LAST):
        raise InvalidMessage("total: only on a final part with a number")


def parse_base64(text: str) -> bytes:
    """Decode base64; line breaks are allowed, other characters outside the alphabet are not.

    Raises:
        InvalidMessage: it is not base64.
    """
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise InvalidMessage("log: not base64") from None


def _parse(body: bytes) -> PartMessage:
    try:
        return _decoder.decode(body)
    except UnicodeDecodeError:
        return _parse_raw(replace_halves(body))
    except (msgspec.DecodeError, RecursionError) as error:
        if (readable := replace_halves(body)) != body:
            return _parse(readable)
        raise InvalidMessage(str(error)) from None


def replace_halves(body: bytes) -> bytes:
    """Replace each half of a surrogate pair by U+FFFD: a client may split a pair between parts."""
    return _ESCAPE.sub(lambda escape: rb"\ufffd" if escape[1] else escape[0], body)


def _parse_raw(body: bytes) -> PartMessage:
    """Parse JSON that is not UTF-8: runners may split a character and send the raw halves."""
    try:
        fields = json.loads(body.decode("utf-8", "surrogateescape"))
        if isinstance(fields, dict):
            fields.pop("meta", None)  # msgspec.Raw needs the original JSON
        return msgspec.convert(fields, PartMessage)
    except (ValueError, RecursionError) as error:  # both libraries raise ValueErrors
        raise InvalidMessage(f"neither UTF-8 nor JSON around raw bytes: {error}") from None


def _uuid(value: str | None) -> str:
    if value and (len(value) > MAX_UUID or _NOT_TEXT.search(value)):
        raise InvalidMessage(
            f"uuid: more than {MAX_UUID} characters, control characters or lone surrogates"
        )
    return value or ""


def _content(message: PartMessage) -> bytes:
    if message.encoding is None:
        return message.log.encode("utf-8", "surrogateescape")
    if message.encoding != "base64":
        raise InvalidMessage("encoding: only 'base64' is supported")
    return parse_base64(message.log)


def _queued_at(meta: msgspec.Raw) -> datetime | None:
    """When the job was queued; None if unreadable, since only metrics use it."""
    try:
        return utc(_meta_decoder.decode(meta).queued_at)
    except (ValueError, RecursionError):
        return None


def utc(time: datetime | None) -> datetime | None:
    """Make a time aware: one without a zone is UTC."""
    if time is None or time.tzinfo is not None:
        return time
    return time.replace(tzinfo=UTC)
