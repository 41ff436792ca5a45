"""Hostile messages among valid ones: from a real queue into rows and dead letters."""

import asyncio
import struct
from collections import Counter
from datetime import UTC, datetime
from decimal import Decimal
from itertools import islice
from random import Random

import aio_pika
import pytest
from click.testing import CliRunner

from drain.dead_letters import AT, REASON
from logflume import contract
from logflume.contract import decode
from logflume.errors import InvalidMessage
from logflume.settings import Settings
from logflume_cli.rejected import rejected
from tests.support import poison
from tests.support.broker import message, publish_raw, ready_messages
from tests.support.parts import content, count_parts
from tests.support.services import draining
from tests.support.waiting import until

FUZZED = 800
RAW = 40
JOBS = [8_000_000_000 + n for n in range(20)]
NOW = datetime(2026, 11, 24, tzinfo=UTC)
RAW_PLACE = 10**6
ROWS = """
SELECT l.job_id, a.uuid, p.number, p.content, p.final
FROM log_parts p JOIN log_attempts a ON a.id = p.attempt_id JOIN logs l ON l.id = p.log_id
"""
TYPES = [None, "", "t" * 255]


@pytest.fixture
def settings(amqp_settings: Settings) -> Settings:
    return amqp_settings


def good(place: int) -> bytes:
    """A valid part of one of the jobs; each job gets its parts in order."""
    number, job = divmod(place, len(JOBS))
    return message(JOBS[job], number, f"{number},")


def headers(dice: Random) -> dict:
    values = [
        None, True, -1, 2**62, 1.5, "x", "é" * 900, bytearray(b"\0\xff"), NOW, [],
        Decimal("1.5"), {"a": {"b": [1, None, {}]}}, [[1], "z"], "\0", "\x1b[31m\n", 2**31, "",
    ]  # fmt: skip
    names = ["traceparent", REASON, AT, "", "é" * 60, *map(str, range(40))]
    found = {name: dice.choice(values) for name in dice.sample(names, dice.choice((0, 1, 3, 44)))}
    return found | dice.choice(({}, {}, {"huge": "y" * 60_000}))


def properties(dice: Random) -> bytes:
    """Properties as raw bytes, readable or not."""

    def short() -> bytes:
        text = dice.choice([b"", b"a", b"caf\xe9", b"\xff" * 255, b"\0", dice.randbytes(90)])
        return bytes([len(text)]) + text

    def table() -> bytes:
        deep = b""
        for _ in range(dice.choice((0, 1, 3, 400, 6000))):
            deep = b"\x01aF" + struct.pack(">I", len(deep)) + deep
        text = b"\x01aS" + struct.pack(">I", 2) + b"\xff\xfe"
        inside = dice.choice([deep, deep, text, b"\x02\xff\xfeV", b"\x01aT" + b"\x7f" * 8])
        return struct.pack(">I", len(inside)) + inside

    def octets() -> bytes:
        return bytes([dice.choice((0, 2, 127, 255))])

    # In the order of their bits: content type and encoding, headers, delivery mode, priority, ...
    kinds = [
        short, short, table, lambda: b"\2", octets, short, short, None, short, lambda: 8 * octets(),
        short,
    ]  # fmt: skip
    flags, found = 0, b""
    for place, make in enumerate(kinds):
        if make and dice.random() < 0.3:
            flags |= 1 << 15 - place
            found += make()
    return struct.pack(">H", flags) + found


async def test_hostile_messages_are_dead_lettered_and_their_neighbours_stored_exactly(
    settings, channel, pool, monkeypatch
):
    dice = Random(poison.seed())
    exchange = await channel.get_exchange(contract.EXCHANGE)
    sent: list[bytes] = []

    async def publish(body: bytes) -> None:
        sent_as = aio_pika.Message(body, headers=headers(dice), type=dice.choice(TYPES))
        await exchange.publish(sent_as, contract.ROUTING_KEY)
        sent.append(body)

    for n in range(RAW):
        body = good(RAW_PLACE + n) if n % 2 else b"invalid, %d" % n
        await publish_raw(settings, body, properties(dice))
        sent.append(body)
    fuzzed = enumerate(poison.cases(poison.message, poison.MESSAGES, FUZZED, dice))
    while some := [*islice(fuzzed, 100)]:
        await asyncio.gather(*(publish(each) for n, body in some for each in (good(n), body)))
    async with draining(settings):
        await until(lambda: _all_are_processed(channel, pool, len(sent)))
    parts, invalid = classify(sent)
    rows = await pool.fetch(ROWS)
    assert Counter(map(tuple, rows)) == parts
    assert await ready_messages(channel) == 0
    async with pool.acquire() as connection:
        for job, job_id in enumerate(JOBS):
            numbers = range(len(range(job, FUZZED, len(JOBS))))
            exact = "".join(f"{number}," for number in numbers).encode()
            assert (await content(connection, job_id)).startswith(exact)
    await check_commands(settings, channel, monkeypatch, invalid)


def classify(bodies: list[bytes]) -> tuple[Counter, Counter]:
    """The parts expected in the database, and the messages expected as dead letters."""
    parts, invalid = Counter(), Counter()
    for body in bodies:
        try:
            one = decode(body, NOW, NOW)
        except InvalidMessage as error:
            invalid[body, str(error)] += 1
        else:
            parts[one.job_id, one.attempt, one.number, one.content, one.final] += 1
    return parts, invalid


async def _all_are_processed(channel, pool, total: int) -> bool:
    queue = await channel.declare_queue(contract.DEAD_LETTER_QUEUE, durable=True)
    return await count_parts(pool) + queue.declaration_result.message_count >= total


async def check_commands(settings, channel, monkeypatch, invalid: Counter) -> None:
    """`logflume rejected` lists, shows, requeues and drops every dead letter."""
    monkeypatch.setenv("LOGFLUME_AMQP__URL", settings.amqp.url.get_secret_value())

    async def call(*arguments: str):
        done = await asyncio.to_thread(CliRunner().invoke, rejected, arguments)
        assert done.exit_code == 0, done.exception
        return done

    total = invalid.total()
    lines = (await call("list", "--limit", str(total))).stdout.splitlines()
    assert len(lines) == total
    for line in lines[:: total // 3]:
        id_, _, size, reason = line.split(maxsplit=3)
        shown = await call("show", id_)
        assert invalid[shown.stdout_bytes, reason] and len(shown.stdout_bytes) == int(size)
    assert (await call("requeue", lines[0].split()[0])).stdout == "1 requeued\n"
    assert (await call("drop", lines[1].split()[0])).stdout == "1 dropped\n"
    assert (await call("requeue", "--all")).stdout == f"{total - 2} requeued\n"
    queue = await channel.declare_queue(contract.QUEUE, durable=True)
    again = Counter([(await queue.get(no_ack=True)).body for _ in range(total - 1)])
    before = Counter()
    for (body, _), times in invalid.items():
        before[body] += times
    assert again < before and await ready_messages(channel) == 0
