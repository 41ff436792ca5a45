"""The drain on real RabbitMQ, Postgres and Temporal."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aio_pika
import pytest
from pydantic import SecretStr

import temporal
import wire
from db import logs
from db.connect import open_pool
from drain.drain import Drain
from drain.signals import Signaller
from settings import Settings
from tests.conftest import manage
from workflows.types import JOB_ID, LifecycleOptions, workflow_id


@pytest.fixture
def settings(settings: Settings, amqp_url: str) -> Settings:
    return settings.model_copy(
        update={"amqp": settings.amqp.model_copy(update={"url": SecretStr(amqp_url)})}
    )


@pytest.fixture
async def channel(settings):
    async with await aio_pika.connect(settings.amqp.url.get_secret_value()) as connection:
        channel = await connection.channel()
        await wire.declare(channel)
        yield channel


@asynccontextmanager
async def draining(settings: Settings) -> AsyncIterator[Drain]:
    """A drain in this process; stopped as SIGTERM stops it."""
    pool = await open_pool(settings.database, settings.drain.flushes)
    signaller = Signaller(
        await temporal.connect(settings.temporal, lazy=True),
        settings.temporal.task_queue,
        LifecycleOptions(),
        interval=0.2,
        in_flight=4,
    )
    drain = Drain(settings.amqp, settings.drain, pool, signaller)
    running = asyncio.create_task(drain.run())
    try:
        yield drain
    finally:
        drain.stop()
        await running
        await pool.close()


async def publish(channel, *bodies: bytes, **properties) -> None:
    """Publish with confirms, so that all are in the queue when it returns."""
    exchange = await channel.get_exchange(wire.EXCHANGE)
    for body in bodies:
        await exchange.publish(aio_pika.Message(body, **properties), wire.ROUTING_KEY)


def message(job_id: int, number: int | str, log: str = "", **fields) -> bytes:
    return json.dumps({"id": job_id, "number": number, "log": log, "uuid": "u", **fields}).encode()


async def until(met) -> None:
    """Postgres has no event for rows that arrive: look until it is so."""
    async with asyncio.timeout(30):
        while not await met():
            await asyncio.sleep(0.02)


async def content(pool, job_id: int) -> bytes:
    async with pool.acquire() as connection:
        log = await logs.find(connection, job_id)
        return b"".join([piece async for piece in logs.parts_content(connection, log.id)])


async def count(pool) -> int:
    return await pool.fetchval("SELECT count(*) FROM log_parts")


async def waiting(channel) -> int:
    """Messages that are ready in the queue."""
    return (await channel.declare_queue(wire.QUEUE, durable=True)).declaration_result.message_count


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
        rejected = await channel.declare_queue(wire.REJECTED_QUEUE, durable=True)
        kept = await rejected.get(timeout=10)
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
        rejected = await channel.declare_queue(wire.REJECTED_QUEUE, durable=True)
        kept = await rejected.get(timeout=10)
    assert json.loads(kept.body)["number"] == 7
    assert await waiting(channel) == 0
    assert await content(pool, job_id) == "".join(f"{n}," for n in numbers if n != 7).encode()


async def test_nothing_is_acked_while_postgres_refuses_to_commit(settings, channel, pool, job_id):
    await pool.execute("ALTER TABLE log_parts RENAME TO hidden")
    await publish(channel, *(message(job_id, n, "x") for n in range(10)))
    async with draining(settings) as drain:
        queue = await channel.declare_queue(wire.QUEUE, durable=True)
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
                await _close_connections(servers, name)
        await until(lambda: _equals(_read(pool, job_id), "".join(sent).encode()))
    assert await waiting(channel) == 0


async def _read(pool, job_id: int) -> bytes:
    try:
        return await content(pool, job_id)
    except logs.UnknownLog:
        return b""


async def _close_connections(servers, vhost: str) -> None:
    """Have the broker close the drain's connection, as an operator may."""

    def close() -> bool:
        found = manage(servers, "GET", f"vhosts/{vhost}/connections")
        mine = [
            one["name"]
            for one in found
            if one.get("client_properties", {}).get("connection_name") == "logflume"
        ]
        for one in mine:
            manage(servers, "DELETE", "connections/" + one.replace(" ", "%20").replace(">", "%3E"))
        return bool(mine)

    # The management's own list of connections lags behind by some seconds.
    await until(lambda: asyncio.to_thread(close))


async def test_a_queue_that_is_deleted_is_declared_and_consumed_again(
    settings, channel, pool, job_id
):
    async with draining(settings):
        await publish(channel, message(job_id, 0, "a"))
        await until(lambda: _equals(count(pool), 1))
        await (await channel.get_queue(wire.QUEUE)).delete(if_unused=False, if_empty=False)
        await until(lambda: _consumers(settings))
        await publish(channel, message(job_id, 1, "b"))
        await until(lambda: _equals(count(pool), 2))


async def _consumers(settings) -> bool:
    async with await aio_pika.connect(settings.amqp.url.get_secret_value()) as connection:
        try:
            queue = await (await connection.channel()).declare_queue(wire.QUEUE, passive=True)
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
