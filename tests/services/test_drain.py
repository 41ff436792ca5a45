"""The drain on real RabbitMQ, Postgres and Temporal."""

import asyncio
import json
import struct
from urllib.parse import urlsplit

import aio_pika
import pytest
from pydantic import SecretStr

from drain.drain import Drain
from logflume import contract
from logflume.errors import ComponentError, UnknownLog
from logflume.settings import Settings
from tests import conftest
from tests.conftest import close_connections, draining, until
from workflows.client import connection as temporal
from workflows.types import JOB_ID, workflow_id


@pytest.fixture
def settings(amqp_settings: Settings) -> Settings:
    return amqp_settings


async def publish(channel, *bodies: bytes, **properties) -> None:
    """Publish with confirms, so that all are in the queue when it returns."""
    exchange = await channel.get_exchange(contract.EXCHANGE)
    for body in bodies:
        await exchange.publish(aio_pika.Message(body, **properties), contract.ROUTING_KEY)


def message(job_id: int, number: int | str, log: str = "", **fields) -> bytes:
    return json.dumps({"id": job_id, "number": number, "log": log, "uuid": "u", **fields}).encode()


async def next_reject(channel):
    """The next message of the reject queue, as soon as there is one."""
    queue = await channel.declare_queue(contract.REJECTED_QUEUE, durable=True)
    rejects = asyncio.Queue()
    tag = await queue.consume(rejects.put, no_ack=True)
    try:
        return await asyncio.wait_for(rejects.get(), 30)
    finally:
        await queue.cancel(tag)


async def content(pool, job_id: int) -> bytes:
    async with pool.acquire() as connection:
        return await conftest.content(connection, job_id)


async def count(pool) -> int:
    return await pool.fetchval("SELECT count(*) FROM log_parts")


async def waiting(channel) -> int:
    """Messages that are ready in the queue."""
    return (
        await channel.declare_queue(contract.QUEUE, durable=True)
    ).declaration_result.message_count


async def test_parts_are_stored_acked_and_told(settings, channel, pool, job_id):
    await publish(channel, message(job_id, 0, "a"), message(job_id, 1, "b", final=True))
    async with draining(settings):
        await until(lambda: _equals(count(pool), 2))
    assert await content(pool, job_id) == b"ab"
    assert await waiting(channel) == 0
    client = await temporal.connect(settings.temporal)
    about = await client.get_workflow_handle(workflow_id(job_id)).describe()
    assert about.typed_search_attributes.get(JOB_ID) == job_id


async def _equals(awaitable, value) -> bool:
    return await awaitable == value


async def test_a_bad_message_is_kept_with_its_reason_and_harms_no_neighbour(
    settings, channel, pool, job_id
):
    bad = b'{"id": 1, "number": 3}'
    await publish(channel, message(job_id, 0, "a"))
    await publish(channel, bad, headers={"x-from": "runner"}, content_type="application/json")
    await publish(channel, message(job_id, 1, "b"))
    async with draining(settings):
        await until(lambda: _equals(count(pool), 2))
        kept = await next_reject(channel)
    assert kept.body == bad
    assert "log" in kept.headers["x-reject-reason"]
    assert kept.headers["x-reject-at"] and kept.headers["x-from"] == "runner"
    assert kept.delivery_mode == aio_pika.DeliveryMode.PERSISTENT
    assert await waiting(channel) == 0
    assert await content(pool, job_id) == b"ab"


async def test_a_part_that_postgres_refuses_is_found_and_kept(settings, channel, pool, job_id):
    """Whatever Postgres will not take must not stop the parts around it."""
    await pool.execute("ALTER TABLE log_parts ADD CHECK (content <> 'poison'::bytea)")
    numbers = range(20)
    await publish(channel, *(message(job_id, n, "poison" if n == 7 else f"{n},") for n in numbers))
    async with draining(settings):
        await until(lambda: _equals(count(pool), 19))
        kept = await next_reject(channel)
    assert json.loads(kept.body)["number"] == 7
    assert await waiting(channel) == 0
    assert await content(pool, job_id) == "".join(f"{n}," for n in numbers if n != 7).encode()


async def test_nothing_is_acked_while_postgres_refuses_to_commit(settings, channel, pool, job_id):
    await pool.execute("ALTER TABLE log_parts RENAME TO hidden")
    await publish(channel, *(message(job_id, n, "x") for n in range(10)))
    async with draining(settings) as drain:
        queue = await channel.declare_queue(contract.QUEUE, durable=True)
        await until(lambda: _consumed(channel))
        drain_stopped = asyncio.create_task(_stop(drain))
        await pool.execute("ALTER TABLE hidden RENAME TO log_parts")
        await drain_stopped
    assert await count(pool) == 10
    assert (await queue.declare()).message_count == 0


async def _consumed(channel) -> bool:
    return await waiting(channel) == 0


async def _stop(drain: Drain) -> None:
    drain.stop()


async def test_a_lost_connection_is_made_again_and_no_part_lost_or_doubled(
    settings, channel, servers, pool, job_id, name
):
    sent = [f"{n}," for n in range(300)]
    async with draining(settings):
        for n, text in enumerate(sent):
            await publish(channel, message(job_id, n, text))
            if n in (100, 200):
                await close_connections(servers, name, "logflume")
        await until(lambda: _equals(_read(pool, job_id), "".join(sent).encode()))
    assert await waiting(channel) == 0


async def _read(pool, job_id: int) -> bytes:
    try:
        return await content(pool, job_id)
    except UnknownLog:
        return b""


async def test_a_queue_that_is_deleted_is_declared_and_consumed_again(
    settings, channel, pool, job_id
):
    async with draining(settings):
        await publish(channel, message(job_id, 0, "a"))
        await until(lambda: _equals(count(pool), 1))
        await (await channel.get_queue(contract.QUEUE)).delete(if_unused=False, if_empty=False)
        await until(lambda: _consumers(settings))
        await publish(channel, message(job_id, 1, "b"))
        await until(lambda: _equals(count(pool), 2))


async def _consumers(settings) -> bool:
    async with await aio_pika.connect(settings.amqp.url.get_secret_value()) as connection:
        try:
            queue = await (await connection.channel()).declare_queue(contract.QUEUE, passive=True)
        except aio_pika.exceptions.ChannelNotFoundEntity:
            return False
        return queue.declaration_result.consumer_count > 0


async def test_two_drains_at_once_make_one_log_of_each_job(settings, channel, pool, numbers):
    jobs = [next(numbers) for _ in range(50)]
    async with draining(settings), draining(settings):
        for n in range(10):
            await publish(channel, *(message(job, n, f"{n},") for job in jobs))
        await until(lambda: _equals(count(pool), 500))
    for job in jobs:
        assert await content(pool, job) == b"0,1,2,3,4,5,6,7,8,9,"
    assert await pool.fetchval("SELECT count(*) FROM logs") == 50


# A message with properties that no AMQP library of Python's would write: as raw frames.
UNREADABLE_TIMESTAMP = b"\x00\x40" + struct.pack(">Q", 2**62)
UNREADABLE_MESSAGE_ID = b"\x00\x80" + b"\x04caf\xe9"
UNREADABLE_HEADERS = b"\x20\x00" + struct.pack(">I", 7) + b"\x01\xffI" + struct.pack(">i", 7)
# Readable with a sign in the place of each byte, and then too long to be sent on with a reject.
UNREADABLE_TYPE = b"\x00\x20\xff" + b"\xe9" * 255
DEEP_HEADERS = b"\x20\x00" + b"".join(
    struct.pack(">I", 7 * depth) + b"\x01aF"[: 3 * bool(depth)] for depth in range(6000, -1, -1)
)


async def publish_raw(settings, body: bytes, properties: bytes) -> None:
    """Publish with property bytes as given, by a client of a few lines."""
    url = urlsplit(settings.amqp.url.get_secret_value())
    reader, writer = await asyncio.open_connection(url.hostname, url.port)

    async def read() -> None:
        _, _, size = struct.unpack(">BHI", await reader.readexactly(7))
        await reader.readexactly(size + 1)

    def frame(kind: int, channel: int, payload: bytes) -> bytes:
        return struct.pack(">BHI", kind, channel, len(payload)) + payload + b"\xce"

    def short(text: str) -> bytes:
        return bytes([len(text)]) + text.encode()

    def call(channel: int, klass: int, method: int, arguments: bytes) -> bytes:
        return frame(1, channel, struct.pack(">HH", klass, method) + arguments)

    login = f"\0{url.username}\0{url.password}".encode()
    writer.write(b"AMQP\x00\x00\x09\x01")
    await read()
    start = struct.pack(">I", 0) + short("PLAIN") + struct.pack(">I", len(login)) + login
    writer.write(call(0, 10, 11, start + short("en_US")))
    await read()
    writer.write(call(0, 10, 31, struct.pack(">HIH", 2047, 131072, 0)))
    writer.write(call(0, 10, 40, short(url.path[1:]) + b"\0\0"))
    await read()
    writer.write(call(1, 20, 10, b"\0"))
    await read()
    target = struct.pack(">H", 0) + short(contract.EXCHANGE) + short(contract.ROUTING_KEY) + b"\0"
    writer.write(call(1, 60, 40, target))
    writer.write(frame(2, 1, struct.pack(">HHQ", 60, 0, len(body)) + properties))
    writer.write(frame(3, 1, body))
    writer.write(call(1, 20, 40, struct.pack(">H", 0) + short("") + struct.pack(">HH", 0, 0)))
    await read()  # closed: all before it was taken
    writer.close()


@pytest.mark.parametrize(
    "properties",
    [
        UNREADABLE_TIMESTAMP,
        UNREADABLE_MESSAGE_ID,
        UNREADABLE_HEADERS,
        UNREADABLE_TYPE,
        DEEP_HEADERS,
    ],
    ids=["timestamp", "message id", "headers", "type", "deep headers"],
)
@pytest.mark.parametrize("is_good", [True, False], ids=["a part", "no part"])
async def test_properties_that_cannot_be_read_cost_neither_the_message_nor_its_neighbours(
    settings, channel, pool, job_id, properties, is_good
):
    body = message(job_id, 1, "b") if is_good else b"no part"
    await publish(channel, message(job_id, 0, "a"))
    await publish_raw(settings, body, properties)
    await publish(channel, message(job_id, 2, "c"))
    async with draining(settings):
        await until(lambda: _equals(count(pool), 3 if is_good else 2))
        if not is_good:
            assert (await next_reject(channel)).body == b"no part"
    assert await content(pool, job_id) == (b"abc" if is_good else b"ac")
    assert await waiting(channel) == 0
    assert await count(pool) == (3 if is_good else 2)


async def test_a_deeply_nested_message_is_rejected_and_not_lost(settings, channel, pool, job_id):
    deep = b'{"id": 1, "number": 0, "log": "precious", "meta": ' + b"[" * 50_000
    await publish(channel, message(job_id, 0, "a"), deep, message(job_id, 1, "b"))
    async with draining(settings):
        await until(lambda: _equals(count(pool), 2))
        assert (await next_reject(channel)).body == deep
    assert await waiting(channel) == 0


async def test_while_rejects_cannot_be_kept_parts_are_still_stored_and_acked(
    settings, channel, pool, job_id
):
    """The reject queue refuses: what is bad waits in the queue, what is good goes through."""
    await channel.declare_queue(
        contract.REJECTED_QUEUE,
        durable=True,
        arguments={"x-max-length": 0, "x-overflow": "reject-publish"},
    )
    await publish(channel, b"no part", *(message(job_id, n, f"{n},") for n in range(20)))
    async with draining(settings):
        await until(lambda: _equals(count(pool), 20))
        for n in range(20, 40):
            await publish(channel, message(job_id, n, f"{n},"))
        await until(lambda: _equals(count(pool), 40))
    assert await waiting(channel) == 1
    assert await content(pool, job_id) == "".join(f"{n}," for n in range(40)).encode()


async def test_a_queue_declared_otherwise_is_told_at_the_start(settings, amqp_url):
    async with await aio_pika.connect(amqp_url) as connection:
        channel = await connection.channel()
        await channel.declare_queue(contract.QUEUE, durable=True, arguments={"x-max-length": 5})
    with pytest.raises(ComponentError, match="PRECONDITION_FAILED"):
        async with draining(settings):
            pass


async def test_a_vhost_that_is_not_there_is_told(settings, amqp_url):
    amqp = settings.amqp.model_copy(update={"url": SecretStr(f"{amqp_url}-not")})
    with pytest.raises(ComponentError, match="refuses the vhost: make it"):
        async with draining(settings.model_copy(update={"amqp": amqp})):
            pass
