"""A hundred thousand hostile messages: each is decoded exactly or is invalid."""

import base64
import codecs
import json
import re
from datetime import UTC, datetime, timedelta
from random import Random

from drain.dead_letters import HEADER_BYTES
from logflume.contract import MAX_UUID, decode
from logflume.domain import LAST, MAX_JOB_ID
from logflume.errors import InvalidMessage
from tests.support import poison

NOW = datetime(2026, 11, 24, tzinfo=UTC)
CASES = 100_000
# Raw bytes as characters that no generated text contains.
RAW = 0xF0000


def mark_raw(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    return "".join(chr(RAW + byte) for byte in error.object[error.start : error.end]), error.end


codecs.register_error("mark-raw", mark_raw)


def test_every_message_is_decoded_exactly_or_invalid_with_a_reason():
    counts = {"part": 0, "invalid": 0}
    for body in poison.cases(poison.message, poison.MESSAGES, CASES, Random(poison.seed())):
        try:
            counts[check(body)] += 1
        except Exception as error:
            raise AssertionError(repr(body)) from error
    assert min(counts.values()) > CASES / 20, counts


def check(body: bytes) -> str:
    try:
        part = decode(body, NOW, NOW)
    except InvalidMessage as error:
        reason = str(error)
        assert reason.isprintable() and 0 < len(reason.encode()) <= HEADER_BYTES
        assert poison.PRECIOUS not in reason
        return "invalid"
    fields = read(body)
    # Within what Postgres, Temporal and RabbitMQ accept.
    assert 0 <= part.job_id <= MAX_JOB_ID and 0 <= part.number <= LAST
    assert (
        len(part.attempt) <= MAX_UUID
        and not re.search(r"[\x00-\x1f\x7f-\x9f]", part.attempt)
        and part.attempt.encode() is not None
    )
    assert part.queued_at is None or part.queued_at.utcoffset() == timedelta()
    # Exactly what the message contains.
    assert (part.job_id, part.number) == (int(fields["id"]), number(fields["number"]))
    assert (part.attempt, part.final) == (text(fields.get("uuid") or ""), bool(fields.get("final")))
    assert part.content == content(fields)
    return "part"


def read(body: bytes) -> dict:
    """The message as parsed by another library."""
    fields = json.loads(body.decode("utf-8", "mark-raw"))
    assert isinstance(fields, dict)
    return fields


def number(value: object) -> int:
    return LAST if value == "last" else int(str(value))


def content(fields: dict) -> bytes:
    if fields.get("encoding") == "base64":
        return base64.b64decode(re.sub(r"\s", "", fields["log"]))
    return b"".join(
        bytes([ord(one) - RAW]) if RAW <= ord(one) < RAW + 256 else one.encode()
        for one in text(fields["log"])
    )


def text(value: str) -> str:
    """Half of a surrogate pair costs that character."""
    return re.sub("[\ud800-\udfff]", "\ufffd", value)
