"""A hundred thousand messages that nobody should send: each is the part it says, or a reject."""

import base64
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


def test_every_message_is_the_part_it_says_or_is_rejected_with_a_reason():
    told = {"part": 0, "reject": 0}
    for body in poison.cases(poison.message, poison.MESSAGES, CASES, Random(poison.seed())):
        try:
            told[check(body)] += 1
        except Exception as error:
            raise AssertionError(repr(body)) from error
    assert min(told.values()) > CASES / 20, told


def check(body: bytes) -> str:
    try:
        part = decode(body, NOW, NOW)
    except InvalidMessage as error:
        reason = str(error)
        assert reason.isprintable() and 0 < len(reason.encode()) <= HEADER_BYTES
        assert poison.PRECIOUS not in reason
        return "reject"
    said = read(body)
    # What Postgres, Temporal and RabbitMQ take.
    assert 0 <= part.job_id <= MAX_JOB_ID and 0 <= part.number <= LAST
    assert (
        len(part.attempt) <= MAX_UUID
        and "\0" not in part.attempt
        and part.attempt.encode() is not None
    )
    assert part.queued_at is None or part.queued_at.utcoffset() == timedelta()
    # And nothing but what the message says.
    assert (part.job_id, part.number) == (int(said["id"]), number(said["number"]))
    assert (part.attempt, part.final) == (said.get("uuid") or "", bool(said.get("final")))
    assert part.content == content(said)
    return "part"


def read(body: bytes) -> dict:
    """The message as another library reads it."""
    found = json.loads(body.decode("utf-8", "surrogateescape"))
    assert isinstance(found, dict)
    return found


def number(value: object) -> int:
    return LAST if value == "last" else int(str(value))


def content(said: dict) -> bytes:
    if said.get("encoding") == "base64":
        return base64.b64decode(re.sub(r"\s", "", said["log"]))
    return said["log"].encode("utf-8", "surrogateescape")
