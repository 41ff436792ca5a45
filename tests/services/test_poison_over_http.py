"""Fuzzes every route that takes a body: each request is answered and does no harm."""

import asyncio
import base64
import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from itertools import islice
from random import Random
from typing import Any
from urllib.parse import quote

import httpx
import jwt
import pytest
from pydantic import SecretStr

from logflume import contract
from logflume.contract import decode
from logflume.settings.servers import PusherSettings
from tests.support import poison
from tests.support.parts import content, replace_whole
from tests.support.pusher import KEY, SECRET, signature

CASES = 500
JOB = 4242
JSON, FORM = "application/json", "application/x-www-form-urlencoded"
TYPES = [JSON, JSON, JSON, FORM, "text/plain", "", "x/y; q=\xff", "application/x-msgpack",
         "multipart/form-data", "multipart/form-data; boundary=a"]  # fmt: skip
TEXT = base64.encodebytes(b"text \0\xff").decode()
PART = {"@type": "log_part", "content": TEXT, "encoding": "base64", "final": False}
WHOLE = {"job_id": JOB, "content": "text é \0", "removed_by": 7}


@pytest.fixture
def settings(amqp_settings, channel):
    pusher = PusherSettings(app_id="1", key=KEY, secret=SecretStr(SECRET))
    return amqp_settings.model_copy(update={"pusher": pusher})


Make = Callable[[Random], bytes]


def listed(make: Make) -> Make:
    return lambda dice: (
        b"[" + b",".join(make(dice) for _ in range(dice.choice((0, 1, 1, 3)))) + b"]"
    )


def shaped(fields: dict[str, Any]) -> Make:
    return lambda dice: poison.shape(fields, dice)


def as_json(*values: object) -> list[bytes]:
    return [json.dumps(value, ensure_ascii=False).encode() for value in values] + [b"", b"null"]


async def send_all(
    web: httpx.AsyncClient,
    dice: Random,
    make: Make,
    corpus: Sequence[bytes],
    call: tuple[str, Callable[[Random], str]],
    sign: Callable[[bytes], dict[str, str]] = lambda _: {},
) -> Counter[int]:
    """Send many bodies to a route; each response is a success or an error with a text."""
    method, path = call
    statuses: Counter[int] = Counter()
    bodies = poison.cases(make, corpus, CASES, dice)

    async def send(body: bytes) -> None:
        headers = {"Content-Type": dice.choice(TYPES), **sign(body)}
        encoded = {k.encode(): v.encode("latin-1") for k, v in headers.items() if v}
        response = await web.request(method, path(dice), content=body, headers=encoded)
        statuses[response.status_code] += 1
        assert response.status_code < 500, (response.text, path, headers, body)
        if response.status_code >= 400:
            assert response.json()["error"], (response.text, headers, body)

    while batch := [*islice(bodies, 5)]:
        await asyncio.gather(*(send(body) for body in batch))
    return statuses


@pytest.fixture
async def neighbour(pool, job_id):
    """A log that must not change, whatever is sent to others."""
    await replace_whole(pool, job_id, b"neighbour")
    yield
    async with pool.acquire() as connection:
        assert await content(connection, job_id) == b"neighbour"


@pytest.fixture
def dice():
    return Random(poison.seed())


async def queued(channel) -> int:
    """The number of messages in the queue; each must be a valid part."""
    queue = await channel.declare_queue(contract.QUEUE, durable=True)
    now, count = datetime.now(UTC), 0
    while message := await queue.get(no_ack=True, fail=False):
        decode(message.body, message.timestamp, now)
        count += 1
    return count


async def test_single_parts(web, neighbour, channel, dice):
    def path(dice: Random) -> str:
        return f"/log-parts/{JOB}/{dice.choice(('0', '7', 'last', '-1', '2147483648', '%FF', '٣'))}"

    statuses = await send_all(web, dice, shaped(PART), as_json(PART), ("PUT", path))
    assert statuses[204] > CASES / 50 and statuses[400] > CASES / 4
    assert await queued(channel) == statuses[204]


async def test_many_parts(web, neighbour, channel, dice, servers):
    key = (servers.data_dir / "jwt_private.pem").read_text()
    part = PART | {"job_id": JOB, "number": 3, "tok": jwt.encode({"sub": str(JOB)}, key, "RS512")}

    def sign(body: bytes) -> dict[str, str]:
        try:
            tokens = "".join(one.get("tok") or "" for one in json.loads(body))
            digest = hashlib.sha1(tokens.encode("utf-8", "surrogatepass")).hexdigest()
        except (ValueError, TypeError, AttributeError, RecursionError):
            digest = "0" * 40
        return {"Authorization": f"token sig:{digest}"}

    corpus = as_json([part], [part, PART], [])
    statuses = await send_all(
        web, dice, listed(shaped(part)), corpus, ("POST", lambda _: "/log-parts/multi"), sign
    )
    assert statuses[204] > CASES / 50 and statuses[400] > CASES / 4
    assert await queued(channel) > 0


async def test_whole_logs(web, neighbour, dice):
    def path(dice: Random) -> str:
        by = dice.choice(
            ["", "7", "-1", "x", "9" * 30, "%00", "1.5", "\N{ARABIC-INDIC DIGIT THREE}"]
        )
        return f"/logs/{dice.choice((JOB, JOB, 'x', '%2e', 2**63))}?removed_by={by}"

    statuses = await send_all(web, dice, poison.message, poison.MESSAGES, ("PUT", path))
    assert statuses[200] > CASES / 50 and statuses[400] > CASES / 50
    corpus = as_json([WHOLE], [WHOLE, {"job_id": str(JOB)}], [])
    call = ("POST", lambda _: "/logs/multi")
    statuses = await send_all(web, dice, listed(shaped(WHOLE)), corpus, call)
    assert statuses[204] > CASES / 50 and statuses[400] > CASES / 4


async def test_webhooks(web, neighbour, dice):
    event = {"name": "channel_occupied", "channel": f"job-{JOB}"}

    def make(dice: Random) -> bytes:
        sent_at = int(time.time() * 1000)
        now = dice.choice((sent_at, sent_at, sent_at, dice.choice(poison.VALUES)))
        events = [event, {**event, "name": dice.choice(poison.VALUES)}, dice.choice(poison.VALUES)]
        return poison.shape({"time_ms": now, "events": events[: dice.randrange(4)]}, dice)

    def sign(body: bytes) -> dict[str, str]:
        right = signature(body)
        return {"X-Pusher-Key": KEY, "X-Pusher-Signature": dice.choice((right,) * 4 + ("\xe9", ""))}

    corpus = as_json({"time_ms": int(time.time() * 1000), "events": [event]})
    call = ("POST", lambda _: "/pusher/existence")
    statuses = await send_all(web, dice, make, corpus, call, sign)
    assert statuses[204] > CASES / 50 and statuses[400] and statuses[401]


async def test_channel_authorization(web, neighbour, dice):
    form = f"socket_id=1.2&channel_name=private-job-{JOB}".encode()

    values = [str(value).encode("utf-8", "replace") for value in poison.VALUES]
    values += [b"1.2", b"1.2", b"private-job-1", b"private-job-1", b"\xff"]

    def make(dice: Random) -> bytes:
        names = dice.sample(["socket_id", "channel_name", "x"], 2)
        return "&".join(f"{name}={quote(dice.choice(values))}" for name in names).encode()

    def sign(_: bytes) -> dict[str, str]:
        return {"Content-Type": dice.choice([FORM, FORM, *TYPES])}

    call = ("POST", lambda _: "/pusher/auth")
    statuses = await send_all(web, dice, make, [form, form, b""], call, sign)
    assert statuses[200] > CASES / 50 and statuses[400] > CASES / 50 and statuses[403] > CASES / 50
