"""Malformed messages and bodies: a corpus and seeded mutations of it.

Each run uses a new seed, which is logged; set POISON_SEED to reproduce a failure.
"""

import base64
import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Any

PRECIOUS = "precious"
"""A word of the corpus' log text: no rejection reason may contain it."""


def seed() -> int:
    """The seed of this run: POISON_SEED or a random one."""
    found = int(os.environ.get("POISON_SEED") or int.from_bytes(os.urandom(4), "big"))
    logging.getLogger(__name__).warning("POISON_SEED=%d", found)
    return found


# Field values of wrong types, out of bounds, or at the bounds.
VALUES: list[Any] = [
    None, True, False, 0, -0.0, 1, -1, 7, 1.5, 1e300, 2**31 - 1, 2**31, 2**53 + 1, 2**63 - 1, 2**63,
    2**64, -(2**63), 10**400, "", "last", "LAST", "0", "007", "-1", "+7", "1e3", "٣", " 7", "7\n",
    "a\0b", "\ud83d", "\udcff", "\ud83d\ude00", "\ufeff", "\u202e", "é漢🎉", "é" * 255, "u" * 256,
    "base64", "BASE64", "rot13", "/wA=", "YQ", "YQ==\r\n", "=", "====",
    [], {}, [[]], {"a": {}}, ["log"], {"log": "x"}, "\\", '"', "log_part", "<b>", "\x1b[31m",
]  # fmt: skip
# Byte sequences with a meaning in JSON, UTF-8, numbers or AMQP.
PIECES = [
    b"\0", b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\xf4\x90\x80\x80", b"\xe2\x80\xa8",
    b"{", b"}", b"[", b"]", b'"', b"\\", b",", b":", b"/*", b"//", b"\\u0000", b"\\ud83d",
    b"\\udc00", b"\\x", b"NaN", b"Infinity", b"-", b"1e999", b"0x10", b"9" * 400, b"[" * 3000,
    b'{"a":' * 3000, b"null", b"true", b"'", b"\r\n", b"\x1b[", b"%00", b"<",
]  # fmt: skip


def shape(fields: dict[str, Any], dice: Random) -> bytes:
    """A JSON object with missing, invalid, duplicate or unknown fields."""
    names = [*fields]
    found = [(name, fields[name]) for name in names if dice.random() > 0.07]
    for _ in range(dice.choice((0, 0, 1, 1, 2))):
        name = dice.choice([*names, "", "Log", "x\0"])
        found.insert(dice.randrange(len(found) + 1), (name, dice.choice(VALUES)))
    ascii_ = dice.random() < 0.5
    members = [f"{json.dumps(k)}:{json.dumps(v, ensure_ascii=ascii_)}" for k, v in found]
    return ("{" + ",".join(members) + "}").encode("utf-8", "surrogatepass")


def spoil(body: bytes, corpus: Sequence[bytes], dice: Random) -> bytes:
    """Apply one mutation: flip a bit; insert, delete or duplicate a piece; splice another body."""
    at = dice.randrange(len(body) + 1)
    to = min(len(body), at + int(dice.expovariate(0.1)))
    other = dice.choice(corpus)
    before, middle, after = body[:at], body[at:to], body[to:]
    between = dice.choice(
        [
            bytes([byte ^ 1 << dice.randrange(8) for byte in middle[:1]]) + middle[1:],
            middle + dice.choice(PIECES),
            dice.choice(PIECES),
            b"",
            middle + middle,
            dice.randbytes(dice.randrange(1, 9)),
            None,
        ]
    )
    if between is None:
        return before + other[dice.randrange(len(other) + 1) :]
    return before + between + after


def cases(
    make: Callable[[Random], bytes], corpus: Sequence[bytes], count: int, dice: Random
) -> Iterator[bytes]:
    """`count` bodies, generated or from the corpus, each mutated up to four times."""
    for _ in range(count):
        body = make(dice) if dice.random() < 0.5 else dice.choice(corpus)
        for _ in range(dice.choice((0, 1, 1, 2, 4))):
            body = spoil(body, corpus, dice)
        yield body


MESSAGE = {
    "id": 4242,
    "log": f"{PRECIOUS} \u001b[31mtext é\n",
    "number": 7,
    "uuid": "a run",
    "final": False,
    "meta": {"queued_at": "2026-11-23T10:00:00Z", "repo": "a/b"},
}
BYTES = base64.b64encode(PRECIOUS.encode() + bytes(range(256))).decode()
MESSAGES = [
    json.dumps(MESSAGE).encode(),
    json.dumps(MESSAGE, ensure_ascii=False).encode(),
    json.dumps({"id": "4242", "number": "last", "log": PRECIOUS, "final": True}).encode(),
    json.dumps({"id": 1, "number": 0, "encoding": "base64", "log": BYTES}).encode(),
    b'{"id": 1, "number": 0, "log": "precious caf\xc3"}',
    b'{"id": 1, "number": 0, "log": "\xff\xfe precious", "meta": [[[[1]]]]}',
    b"",
    b"no json",
    b"[]",
]


def message(dice: Random) -> bytes:
    """A message with fields of the wire contract and arbitrary values."""
    log = {"encoding": None} if dice.random() < 0.5 else {"encoding": "base64", "log": BYTES}
    return shape({**MESSAGE, **log}, dice)
