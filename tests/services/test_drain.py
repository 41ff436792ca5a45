"""The drain on real RabbitMQ, Postgres and Temporal."""

import asyncio
import json
import struct

import aio_pika
import pytest
from prometheus_client import REGISTRY
from pydantic import SecretStr

from drain import session
from logflume import contract
from logflume.errors import ComponentError, UnknownLog
from logflume.settings import Settings
from tests.support.broker import (
    close_connections,
    manage,
    message,
    publish,
    publish_raw,
    ready_messages,
)
from tests.support.parts import count_parts, stored_content
from tests.support.services import draining
from tests.support.waiting import until
from workflows.client.connection import connect_temporal
from workflows.lifecycle_types import JOB_ID, workflow_id


@pytest.fixture
def settings(amqp_settings: Settings) -> Settings:
    return amqp_settings


async def next_dead_letter(channel):
    """Wait for the next message in the dead-letter queue."""
    queue = await channel.declare_queue(contract.DEAD_LETTER_QUEUE, durable=True)
    dead_letters = asyncio.Queue()
    tag = await queue.consume(dead_letters.put, no_ack=True)
    try:
        return await asyncio.wait_for(dead_letters.get(), 30)
    finally:
        await queue.cancel(tag)


async def test_parts_are_stored_acked_and_their_workflow_signalled(settings, channel, pool, job_id):
    await publish(channel, message(job_id, 0, "a"), message(job_id, 1, "b", final=True))
    async with draining(settings):
        await until(lambda: _equals(count_parts(pool), 2))
    assert await stored_content(pool, job_id) == b"ab"
    assert await ready_messages(channel) == 0
    client = await connect_temporal(settings.temporal)
    about = await client.get_workflow_handle(workflow_id(job_id)).describe()
    assert about.typed_search_attributes.get(JOB_ID) == job_id


async def _equals(awaitable, value) -> bool:
    return await awaitable == value


async def test_an_invalid_message_is_dead_lettered_and_its_neighbours_are_stored(
    settings, channel, pool, job_id
):
    bad = b'{"id": 1, "number": 3}'
    await publish(channel, message(job_id, 0, "a"))
    await publish(channel, bad, headers={"x-from": "runner"}, content_type="application/json")
    await publish(channel, message(job_id, 1, "b"))
    async with draining(settings):
        await until(lambda: _equals(count_parts(pool), 2))
        letter = await next_dead_letter(channel)
    assert letter.body == bad
    assert "log" in letter.headers["x-reject-reason"]
    assert letter.headers["x-reject-at"] and letter.headers["x-from"] == "runner"
    assert letter.delivery_mode == aio_pika.DeliveryMode.PERSISTENT
    assert await ready_messages(channel) == 0
    assert await stored_content(pool, job_id) == b"ab"


async def test_a_part_that_postgres_refuses_is_dead_lettered(settings, channel, pool, job_id):
    """A part that cannot be stored must not stop the parts around it."""
    await pool.execute("ALTER TABLE log_parts ADD CHECK (content <> 'poison'::bytea)")
    numbers = range(20)
    await publish(channel, *(message(job_id, n, "poison" if n == 7 else f"{n},") for n in numbers))
    async with draining(settings):
        await until(lambda: _equals(count_parts(pool), 19))
        letter = await next_dead_letter(channel)
    assert json.loads(letter.body)["number"] == 7
    assert await ready_messages(channel) == 0
    assert (
        await stored_content(pool, job_id) == "".join(f"{n}," for n in numbers if n != 7).encode()
    )


async def test_nothing_is_acked_while_postgres_refuses_to_commit(
    settings, channel, pool, job_id, monkeypatch
):
    """A drain that stops meanwhile leaves every message in the queue; the next one stores them."""
    monkeypatch.setattr(session, "STOP_SECONDS", 0.5)
    await pool.execute("ALTER TABLE log_parts RENAME TO hidden")
    await publish(channel, *(message(job_id, n, f"{n},") for n in range(10)))
    failures = _flush_failures()
    async with draining(settings):
        await until(lambda: _equals(ready_messages(channel), 0))
        await until(lambda: _flushes_failed(failures + 2))
    assert await ready_messages(channel) == 10
    await pool.execute("ALTER TABLE hidden RENAME TO log_parts")
    async with draining(settings):
        await until(lambda: _equals(count_parts(pool), 10))
    assert await ready_messages(channel) == 0
    assert await stored_content(pool, job_id) == b"0,1,2,3,4,5,6,7,8,9,"


async def test_a_flush_that_is_retried_is_not_overtaken_by_another_text_for_its_part(
    settings, channel, pool, job_id
):
    await pool.execute("""
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE 'timed out' USING ERRCODE = 'query_canceled';
        END $$;
        CREATE TRIGGER refuse BEFORE INSERT ON log_parts FOR EACH ROW
        WHEN (new.content = 'first') EXECUTE FUNCTION refuse();
    """)
    settings = settings.model_copy(
        update={"drain": settings.drain.model_copy(update={"batch_parts": 1})}
    )
    failures = _flush_failures()
    async with draining(settings):
        await publish(channel, message(job_id, 0, "first"))
        await until(lambda: _flushes_failed(failures + 1))
        await publish(channel, message(job_id, 0, "second"))
        # Meanwhile the second one would be stored, if it did not wait.
        await until(lambda: _flushes_failed(failures + 3))
        await pool.execute("DROP TRIGGER refuse ON log_parts")
        await until(lambda: _equals(count_parts(pool), 2))
    assert await stored_content(pool, job_id) == b"second"


def _flush_failures() -> float:
    return REGISTRY.get_sample_value("logflume_drain_flush_failures_total") or 0.0


async def _flushes_failed(count: float) -> bool:
    return _flush_failures() >= count


async def test_after_a_lost_connection_no_part_is_lost_or_duplicated(
    settings, channel, servers, pool, job_id, name
):
    sent = [f"{n}," for n in range(300)]
    async with draining(settings):
        for n, text in enumerate(sent):
            await publish(channel, message(job_id, n, text))
            if n in (100, 200):
                await close_connections(servers, name, "logflume")
        await until(lambda: _equals(_read(pool, job_id), "".join(sent).encode()))
    assert await ready_messages(channel) == 0


async def _read(pool, job_id: int) -> bytes:
    try:
        return await stored_content(pool, job_id)
    except UnknownLog:
        return b""


async def test_a_deleted_queue_is_declared_and_consumed_again(settings, channel, pool, job_id):
    async with draining(settings):
        await publish(channel, message(job_id, 0, "a"))
        await until(lambda: _equals(count_parts(pool), 1))
        await (await channel.get_queue(contract.QUEUE)).delete(if_unused=False, if_empty=False)
        await until(lambda: _consumers(settings))
        await publish(channel, message(job_id, 1, "b"))
        await until(lambda: _equals(count_parts(pool), 2))


async def test_a_drain_stores_what_it_holds_of_a_queue_that_is_deleted(
    settings, channel, pool, job_id
):
    """The queue appears empty: what is delivered is not counted."""
    slow = settings.drain.model_copy(update={"batch_seconds": 3600, "batch_parts": 8})
    settings = settings.model_copy(update={"drain": slow})
    await publish(channel, *(message(job_id, n, f"{n},") for n in range(20)))
    async with draining(settings):
        await until(lambda: _equals(count_parts(pool), 16))
        await until(lambda: _holds(4))
        await (await channel.get_queue(contract.QUEUE)).delete(if_unused=False, if_empty=True)
        await until(lambda: _equals(count_parts(pool), 20))
        await until(lambda: _consumers(settings))
    assert await stored_content(pool, job_id) == "".join(f"{n}," for n in range(20)).encode()


async def test_a_drain_stores_what_it_holds_once_postgres_is_back(settings, channel, pool, job_id):
    """The queue is deleted while all batches in flight wait for Postgres."""
    some = settings.drain.model_copy(update={"batch_parts": 2, "flushes": 2})
    settings = settings.model_copy(update={"drain": some})
    await pool.execute("ALTER TABLE log_parts RENAME TO hidden")
    await publish(channel, *(message(job_id, n, f"{n},") for n in range(20)), b"invalid")
    async with draining(settings):
        await until(lambda: _holds(21))
        await (await channel.get_queue(contract.QUEUE)).delete(if_unused=False, if_empty=True)
        await until(lambda: _holds(0))
        await pool.execute("ALTER TABLE hidden RENAME TO log_parts")
        await until(lambda: _consumers(settings))
        assert await stored_content(pool, job_id) == "".join(f"{n}," for n in range(20)).encode()
        assert (await next_dead_letter(channel)).body == b"invalid"


async def _consumers(settings) -> bool:
    async with await aio_pika.connect(settings.amqp.url.get_secret_value()) as connection:
        try:
            queue = await (await connection.channel()).declare_queue(contract.QUEUE, passive=True)
        except aio_pika.exceptions.ChannelNotFoundEntity:
            return False
        return queue.declaration_result.consumer_count != 0


async def test_two_drains_write_one_log_per_job(settings, channel, pool, numbers):
    jobs = [next(numbers) for _ in range(50)]
    async with draining(settings), draining(settings):
        for n in range(10):
            await publish(channel, *(message(job, n, f"{n},") for job in jobs))
        await until(lambda: _equals(count_parts(pool), 500))
    for job in jobs:
        assert await stored_content(pool, job) == b"0,1,2,3,4,5,6,7,8,9,"
    assert await pool.fetchval("SELECT count(*) FROM logs") == 50


# Properties that no Python AMQP library would write, as raw frames.
UNREADABLE_TIMESTAMP = b"\x00\x40" + struct.pack(">Q", 2**62)
UNREADABLE_MESSAGE_ID = b"\x00\x80" + b"\x04caf\xe9"
UNREADABLE_HEADERS = b"\x20\x00" + struct.pack(">I", 7) + b"\x01\xffI" + struct.pack(">i", 7)
# Readable with a replacement character for each byte, which is too long for a dead letter.
UNREADABLE_TYPE = b"\x00\x20\xff" + b"\xe9" * 255
DEEP_HEADERS = b"\x20\x00" + b"".join(
    struct.pack(">I", 7 * depth) + b"\x01aF"[: 3 * bool(depth)] for depth in range(6000, -1, -1)
)


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
@pytest.mark.parametrize("is_good", [True, False], ids=["part", "invalid"])
async def test_unreadable_properties_affect_neither_the_message_nor_its_neighbours(
    settings, channel, pool, job_id, properties, is_good
):
    body = message(job_id, 1, "b") if is_good else b"invalid"
    await publish(channel, message(job_id, 0, "a"))
    await publish_raw(settings, body, properties)
    await publish(channel, message(job_id, 2, "c"))
    async with draining(settings):
        await until(lambda: _equals(count_parts(pool), 3 if is_good else 2))
        if not is_good:
            assert (await next_dead_letter(channel)).body == b"invalid"
    assert await stored_content(pool, job_id) == (b"abc" if is_good else b"ac")
    assert await ready_messages(channel) == 0
    assert await count_parts(pool) == (3 if is_good else 2)


async def test_a_deeply_nested_message_is_dead_lettered(settings, channel, pool, job_id):
    deep = b'{"id": 1, "number": 0, "log": "precious", "meta": ' + b"[" * 50_000
    await publish(channel, message(job_id, 0, "a"), deep, message(job_id, 1, "b"))
    async with draining(settings):
        await until(lambda: _equals(count_parts(pool), 2))
        assert (await next_dead_letter(channel)).body == deep
    assert await ready_messages(channel) == 0


async def test_parts_are_stored_and_acked_while_the_dead_letter_queue_refuses(
    settings, channel, servers, name, pool, job_id
):
    """Invalid messages, first or last in their batches, wait on the same session."""
    limit = {
        "pattern": f"^{contract.DEAD_LETTER_QUEUE}$",
        "definition": {"max-length": 0, "overflow": "reject-publish"},
        "apply-to": "queues",
    }
    manage(servers, "PUT", f"policies/{name}/limit", limit)
    lost = REGISTRY.get_sample_value("logflume_drain_amqp_connections_lost_total")
    parts = [message(job_id, n, f"{n},") for n in range(40)]
    await publish(channel, b"first", *parts[:20], b"last")
    async with draining(settings):
        await until(lambda: _holds(2))
        for part in parts[20:]:
            await publish(channel, part)
        await until(lambda: _equals(count_parts(pool), 40))
        await until(lambda: _holds(2))
        manage(servers, "DELETE", f"policies/{name}/limit")
        await until(lambda: _holds(0))
    dead_letters = await channel.get_queue(contract.DEAD_LETTER_QUEUE)
    letters = {(await dead_letters.get(no_ack=True)).body for _ in range(2)}
    assert letters == {b"first", b"last"}
    assert REGISTRY.get_sample_value("logflume_drain_amqp_connections_lost_total") == lost
    assert (await ready_messages(channel), await count_parts(pool)) == (0, 40)
    assert await stored_content(pool, job_id) == "".join(f"{n}," for n in range(40)).encode()


async def _holds(messages: int) -> bool:
    return REGISTRY.get_sample_value("logflume_drain_unacked_messages") == messages


async def test_a_queue_with_other_arguments_is_an_error_at_startup(settings, amqp_url):
    async with await aio_pika.connect(amqp_url) as connection:
        channel = await connection.channel()
        await channel.declare_queue(contract.QUEUE, durable=True, arguments={"x-max-length": 5})
    with pytest.raises(ComponentError, match="PRECONDITION_FAILED"):
        async with draining(settings):
            pass


async def test_a_missing_vhost_is_an_error_at_startup(settings, amqp_url):
    amqp = settings.amqp.model_copy(update={"url": SecretStr(f"{amqp_url}-not")})
    with pytest.raises(ComponentError, match="refuses the vhost: create it"):
        async with draining(settings.model_copy(update={"amqp": amqp})):
            pass
