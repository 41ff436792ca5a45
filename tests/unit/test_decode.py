"""Valid and invalid values for every field of the wire contract."""

import base64
import contextlib
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logflume.contract import PartMessage, decode, utc
from logflume.domain import LAST, MAX_JOB_ID, Total
from logflume.errors import InvalidMessage

NOW = datetime(2026, 11, 24, tzinfo=UTC)
TOTAL: dict[str, Any] = {"parts": 8, "bytes": 2**63 - 1, "sha256": "0a" * 32}
GOOD = {"id": 4242, "log": "text", "number": 7, "uuid": "run", "final": False}


def body(**fields: object) -> bytes:
    """A valid message with some fields replaced; ... omits one."""
    message = {name: value for name, value in {**GOOD, **fields}.items() if value is not ...}
    return json.dumps(message).encode()


def read(raw: bytes):
    return decode(raw, None, NOW)


def test_a_part_as_a_runner_sends_it():
    part = read(body(meta={"queued_at": "2026-11-23T10:00:00Z", "repo": "a/b"}))
    assert (part.job_id, part.attempt, part.number) == (4242, "run", 7)
    assert (part.content, part.final, part.received_at) == (b"text", False, NOW)
    assert part.queued_at == datetime(2026, 11, 23, 10, tzinfo=UTC)


@pytest.mark.parametrize(
    "meta",
    [None, {}, [], 7, "x", {"queued_at": None}, {"queued_at": 7}, {"queued_at": "soon"}],
    ids=repr,
)
def test_any_meta_is_accepted(meta):
    part = read(body(meta=meta))
    assert (part.content, part.queued_at) == (b"text", None)


def test_meta_is_ignored_if_the_log_has_raw_bytes():
    raw = body(meta={"queued_at": "2026-11-23T10:00:00Z"}).replace(b"text", b"te\xff")
    assert (read(raw).content, read(raw).queued_at) == (b"te\xff", None)


@pytest.mark.parametrize(
    ("fields", "name", "value"),
    [
        ({"id": "4242"}, "job_id", 4242),
        ({"id": 0}, "job_id", 0),
        ({"id": MAX_JOB_ID}, "job_id", MAX_JOB_ID),
        ({"number": "last"}, "number", LAST),
        ({"number": 0}, "number", 0),
        ({"uuid": ...}, "attempt", ""),
        ({"uuid": None}, "attempt", ""),
        ({"final": ...}, "final", False),
        ({"final": True}, "final", True),
        ({"log": "a\0b"}, "content", b"a\0b"),
        ({"log": "", "final": True}, "content", b""),
        ({"log": "é漢🎉"}, "content", "é漢🎉".encode()),
        ({"log": base64.b64encode(b"\xff\0").decode(), "encoding": "base64"}, "content", b"\xff\0"),
        ({"log": "YWJj\r\nZGVm\n", "encoding": "base64"}, "content", b"abcdef"),
        ({"total": None}, "total", None),
        ({"final": True, "total": TOTAL}, "total", Total(**TOTAL)),
    ],
)
def test_valid_fields(fields, name, value):
    assert getattr(read(body(**fields)), name) == value


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "truncated"),
        (b"no json", "JSON"),
        (b"[]", "object"),
        (b'{"id": 1, "log": "\xff", "number": }', "JSON"),
        (b'{"log": "\xff", "number": 1}', "id"),
        (b"\xff" + b"[" * 100_000, "JSON"),
        (body(log=...), "log"),
        (body(log=None), "log"),
        (body(log=7), "log"),
        (body(number=...), "number"),
        (body(number=None), "number"),
        (body(number=-1), "number"),
        (body(number=LAST + 1), "number"),
        (body(number="first"), "number"),
        (body(number=1.5), "number"),
        (body(id=...), "id"),
        (body(id=-1), "id"),
        (body(id=MAX_JOB_ID + 1), "id"),
        (body(id="12a"), "id"),
        (body(id="٣"), "id"),
        (body(id=""), "id"),
        (body(id="9" * 5000), "id"),
        (body(id=True), "id"),
        (body(uuid="a\0b"), "uuid"),
        (body(uuid="a\x1b[2Jb"), "uuid"),
        (body(uuid="a\x9b2Jb"), "uuid"),
        (body(uuid="a\nb"), "uuid"),
        (body(uuid="u" * 256), "uuid"),
        (body(uuid=7), "uuid"),
        (body(final="yes"), "final"),
        (body(encoding="rot13"), "encoding"),
        (body(encoding="base64", log="not base64!"), "base64"),
        (body(encoding="base64", log="YQ"), "base64"),
        (body(final=True, total=7), "total"),
        (body(final=True, total={**TOTAL, "parts": 0}), r"total\.parts"),
        (body(final=True, total={**TOTAL, "bytes": -1}), r"total\.bytes"),
        (body(final=True, total={**TOTAL, "bytes": 2**63}), r"total\.bytes"),
        (body(final=True, total={**TOTAL, "sha256": "A" * 64}), r"total\.sha256"),
        (body(final=True, total={**TOTAL, "sha256": "a" * 64 + "\n"}), r"total\.sha256"),
        (body(final=True, total={"parts": 1, "bytes": 1}), "sha256"),
        (body(total=TOTAL), "total: only on a final part"),
        (body(number="last", final=True, total=TOTAL), "total: only on a final part"),
    ],
)
def test_an_invalid_message_names_the_field(raw, reason):
    with pytest.raises(InvalidMessage, match=reason):
        read(raw)


def test_raw_halves_of_a_character_survive():
    """Some runners put raw bytes between the quotes, split inside a character."""
    raw = b'{"id": 1, "number": 0, "log": "caf\xc3"}'
    assert read(raw).content == b"caf\xc3"


@pytest.mark.parametrize(
    ("text", "content"),
    [
        (rb"mid \ud83d", "mid \ufffd"),
        (rb"\ude00 mid", "\ufffd mid"),
        (rb"\uD83Dmid\n", "\ufffdmid\n"),
        (rb"\ude00\ud83d", "\ufffd\ufffd"),
        (rb"\ud83d\ud83d\ude00", "\ufffd\U0001f600"),
        (rb"\udc80", "\ufffd"),
        (rb"\ud83d\ude00", "\U0001f600"),
        (rb"\\ud83d", "\\ud83d"),
        (rb"\\\ud83d", "\\\ufffd"),
    ],
)
@pytest.mark.parametrize("raw", [b"", b"\xc3"], ids=["text", "raw bytes"])
def test_half_of_a_surrogate_pair_costs_one_character(text, content, raw):
    message = b'{"id": 1, "number": 0, "log": "' + raw + text + b'"}'
    assert read(message).content == raw + content.encode()


@given(st.binary(max_size=200))
def test_any_bytes_survive_base64(content):
    message = body(log=base64.b64encode(content).decode(), encoding="base64")
    assert read(message).content == content


@given(st.binary(max_size=80))
def test_any_message_is_a_part_or_invalid(raw):
    with contextlib.suppress(InvalidMessage):
        read(raw)


def test_times_without_a_zone_are_utc():
    naive = datetime(2026, 11, 24, 10)  # noqa: DTZ001 - pamqp may return one
    assert utc(naive) == datetime(2026, 11, 24, 10, tzinfo=UTC)
    assert utc(None) is None


@given(st.binary(max_size=80), st.booleans(), st.none() | st.text("ab", min_size=1))
def test_an_encoded_part_is_decoded_unchanged(content, final, uuid):
    meta = {"queued_at": "2026-11-23T10:00:00Z"}
    part = read(PartMessage.of(7, 3, content, uuid=uuid, final=final, meta=meta).encode())
    assert (part.job_id, part.number, part.attempt) == (7, 3, uuid or "")
    assert (part.content, part.final) == (content, final)
    assert part.queued_at == datetime(2026, 11, 23, 10, tzinfo=UTC)


def test_unset_fields_are_omitted():
    assert PartMessage.of(7, 0, b"x").encode() == b'{"id":7,"log":"x","number":0,"final":false}'
