"""Bodies that nobody should send, to every way in of the web: an answer each, and no harm."""

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
from logflume.settings.groups import PusherSettings
from tests.support import poison
from tests.support.parts import content, write_whole
from tests.support.pusher import KEY, SECRET, signature
from tests.support.services import serving

CASES = 500
JOB = 4242
JSON, FORM = "application/json", "application/x-www-form-urlencoded"
TYPES = [JSON, JSON, JSON, FORM, "text/plain", "", "x/y; q=\xff", "application/x-msgpack",
         "multipart/form-data", "multipart/form-data; boundary=a"]  # fmt: skip
TEXT = base64.encodebytes(b"text \0\xff").decode()
PART = {"@type": "log_part", "content": TEXT, "encoding": "base64", "final": False}
WHOLE = {"job_id": JOB, "content": "text é \0", "removed_by": 7}


@pytest.fixture
async def web(amqp_settings, channel, pool):
    pusher = PusherSettings(app_id="1", key=KEY, secret=SecretStr(SECRET))
    async with serving(amqp_settings.model_copy(update={"pusher": pusher}), pool) as client:
        yield client


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
    """Send many bodies one way; each answer is a success, or a refusal that says why."""
    method, path = call
    told: Counter[int] = Counter()
    bodies = poison.cases(make, corpus, CASES, dice)

    async def send(body: bytes) -> None:
        headers = {"Content-Type": dice.choice(TYPES), **sign(body)}
        given = {k.encode(): v.encode("latin-1") for k, v in headers.items() if v}
        answer = await web.request(method, path(dice), content=body, headers=given)
        told[answer.status_code] += 1
        assert answer.status_code < 500, (answer.text, path, headers, body)
        if answer.status_code >= 400:
            assert answer.json()["error"], (answer.text, headers, body)

    while some := [*islice(bodies, 20)]:
        await asyncio.gather(*(send(body) for body in some))
    return told


@pytest.fixture
async def neighbour(pool, job_id):
    """A log that stays as it is, whatever is sent to others."""
    async with pool.acquire() as connection:
        await write_whole(connection, job_id, b"neighbour")
    yield
    async with pool.acquire() as connection:
        assert await content(connection, job_id) == b"neighbour"


@pytest.fixture
def dice():
    return Random(poison.seed())


async def queued(channel) -> int:
    """How many parts came into the queue; each is one that a drain can read."""
    queue = await channel.declare_queue(contract.QUEUE, durable=True)
    now, found = datetime.now(UTC), 0
    while message := await queue.get(no_ack=True, fail=False):
        decode(message.body, message.timestamp, now)
        found += 1
    return found


async def test_parts_one_by_one(web, neighbour, channel, dice):
    def path(dice: Random) -> str:
        return f"/log-parts/{JOB}/{dice.choice(('0', '7', 'last', '-1', '2147483648', '%FF', '٣'))}"

    told = await send_all(web, dice, shaped(PART), as_json(PART), ("PUT", path))
    assert told[204] > CASES / 50 and told[400] > CASES / 4
    assert await queued(channel) == told[204]


async def test_parts_of_many(web, neighbour, channel, dice, servers):
    key = (servers.data_dir / "jwt_private.pem").read_text()
    part = PART | {"job_id": JOB, "number": 3, "tok": jwt.encode({"sub": str(JOB)}, key, "RS512")}

    def sign(body: bytes) -> dict[str, str]:
        try:
            said = "".join(one.get("tok") or "" for one in json.loads(body))
            digest = hashlib.sha1(said.encode("utf-8", "surrogatepass")).hexdigest()
        except (ValueError, TypeError, AttributeError, RecursionError):
            digest = "0" * 40
        return {"Authorization": f"token sig:{digest}"}

    corpus = as_json([part], [part, PART], [])
    told = await send_all(
        web, dice, listed(shaped(part)), corpus, ("POST", lambda _: "/log-parts/multi"), sign
    )
    assert told[204] > CASES / 50 and told[400] > CASES / 4
    assert await queued(channel) > 0


async def test_whole_logs(web, neighbour, dice):
    def path(dice: Random) -> str:
        by = dice.choice(
            ["", "7", "-1", "x", "9" * 30, "%00", "1.5", "\N{ARABIC-INDIC DIGIT THREE}"]
        )
        return f"/logs/{dice.choice((JOB, JOB, 'x', '%2e', 2**63))}?removed_by={by}"

    told = await send_all(web, dice, poison.message, poison.MESSAGES, ("PUT", path))
    assert told[200] > CASES / 50 and told[400] > CASES / 50
    corpus = as_json([WHOLE], [WHOLE, {"job_id": str(JOB)}], [])
    call = ("POST", lambda _: "/logs/multi")
    told = await send_all(web, dice, listed(shaped(WHOLE)), corpus, call)
    assert told[204] > CASES / 50 and told[400] > CASES / 4


async def test_what_pusher_sends(web, neighbour, dice):
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
    told = await send_all(web, dice, make, corpus, call, sign)
    assert told[204] > CASES / 50 and told[400] and told[401]


async def test_who_asks_for_a_channel(web, neighbour, dice):
    form = f"socket_id=1.2&channel_name=private-job-{JOB}".encode()

    values = [str(value).encode("utf-8", "replace") for value in poison.VALUES]
    values += [b"1.2", b"1.2", b"private-job-1", b"private-job-1", b"\xff"]

    def make(dice: Random) -> bytes:
        names = dice.sample(["socket_id", "channel_name", "x"], 2)
        return "&".join(f"{name}={quote(dice.choice(values))}" for name in names).encode()

    def sign(_: bytes) -> dict[str, str]:
        return {"Content-Type": dice.choice([FORM, FORM, *TYPES])}

    call = ("POST", lambda _: "/pusher/auth")
    told = await send_all(web, dice, make, [form, form, b""], call, sign)
    assert told[200] > CASES / 50 and told[400] > CASES / 50 and told[403] > CASES / 50
