"""`logflume rejected`, on a real dead-letter queue."""

import asyncio
import json
from datetime import datetime

import aio_pika
import pytest
from click.testing import CliRunner
from prometheus_client import REGISTRY

from logflume import amqp, contract
from logflume_cli.rejected import rejected
from tests.support.broker import message, publish, rabbitmqctl, ready_messages
from tests.support.parts import count_parts
from tests.support.processes import LOGFLUME, on_terminal
from tests.support.services import draining
from tests.support.waiting import until

LARGE = 1024 * 1024
BROKEN = [b"\x1b[2Jno json", b'{"id": 1}', b'{"id": 2, "log": 7, "number": 0}']


@pytest.fixture
def call(amqp_settings, monkeypatch):
    """Run the command; its event loop needs a thread of its own."""
    monkeypatch.setenv("LOGFLUME_AMQP__URL", amqp_settings.amqp.url.get_secret_value())
    monkeypatch.setenv("LOGFLUME_DATABASE__URL", amqp_settings.database.url.get_secret_value())

    async def call(*arguments: str):
        return await asyncio.to_thread(CliRunner().invoke, rejected, arguments)

    return call


@pytest.fixture
async def broken(amqp_settings, channel, call):
    """The ids of three dead-lettered messages, in the order of the queue."""
    async with draining(amqp_settings):
        exchange = await amqp.declare(channel)
        for body in BROKEN:
            sent = aio_pika.Message(body, headers={"x": 1}, user_id="logflume", app_id="a runner")
            await exchange.publish(sent, contract.ROUTING_KEY)
        await until(lambda: waiting(channel, contract.DEAD_LETTER_QUEUE, 3))
    return [line.split()[0] for line in (await call("list")).stdout.splitlines()]


async def waiting(channel, name: str, count: int) -> bool:
    queue = await channel.declare_queue(name, durable=True)
    return queue.declaration_result.message_count == count


async def test_messages_are_listed_and_shown_without_being_moved(call, broken):
    listed = (await call("list", "--limit", "2")).stdout.splitlines()
    assert [line.split()[0] for line in listed[:2]] == broken[:2]
    assert "`log`" in listed[1] and "more" in listed[2]
    as_json = json.loads((await call("list", "--limit", "2", "--json")).stdout)
    assert [letter["id"] for letter in as_json] == broken[:2]
    assert as_json[1].keys() == {"id", "at", "bytes", "reason"}
    shown = await call("show", broken[2])
    assert shown.stdout_bytes == BROKEN[2]
    assert "log" in shown.stderr
    sender = f"sent with user_id logflume, routing_key {contract.ROUTING_KEY}, app_id a runner"
    assert sender in shown.stderr
    printed = await asyncio.to_thread(on_terminal, LOGFLUME, "rejected", "show", broken[0])
    assert "\\x1b[2Jno json" in printed and "\x1b" not in printed
    assert [line.split()[0] for line in (await call("list")).stdout.splitlines()] == broken


async def test_a_message_is_requeued_unchanged_and_another_dropped(call, broken, channel):
    assert (await call("requeue", broken[1])).stdout == "1 requeued\n"
    queue = await channel.declare_queue(contract.QUEUE, durable=True)
    again = await queue.get()
    await again.ack()
    assert (again.body, again.headers, again.app_id) == (BROKEN[1], {"x": 1}, "a runner")
    assert (await call("drop", broken[0])).stdout == "1 dropped\n"
    assert await waiting(channel, contract.DEAD_LETTER_QUEUE, 1)


async def test_a_message_that_is_dead_lettered_again_is_visited_once(
    call, broken, amqp_settings, channel
):
    async with draining(amqp_settings):
        assert (await call("requeue", "--all")).stdout == "3 requeued\n"
        await until(lambda: waiting(channel, contract.DEAD_LETTER_QUEUE, 3))
    assert (await call("drop", "--all")).stdout == "3 dropped\n"
    assert (await call("list")).stdout == "the dead-letter queue is empty\n"


@pytest.fixture
def limit_messages(servers):
    """Set RabbitMQ's `max_message_size` in bytes, as an upgrade to RabbitMQ 4 does."""

    def limit(size: int) -> int:
        # RabbitMQ 3 reads it from the environment, RabbitMQ 4 from a persistent term.
        return int(
            rabbitmqctl(
                servers,
                "eval",
                "{ok, Before} = application:get_env(rabbit, max_message_size),"
                f"application:set_env(rabbit, max_message_size, {size}),"
                f"persistent_term:put(max_message_size, {size}), Before.",
            )
        )

    before = limit(2 * LARGE)
    yield limit
    limit(before)


async def test_a_message_above_the_brokers_limit_is_stored_in_postgres(
    call, amqp_settings, channel, pool, job_id, limit_messages
):
    body = b"\xff" * LARGE
    await publish(channel, b"small", body, message(job_id, 0, "a"), timestamp=1000)
    limit_messages(LARGE // 2)

    async def are_acknowledged() -> bool:
        stored = await pool.fetchval("SELECT count(*) FROM large_dead_letters")
        return stored == 1 and not REGISTRY.get_sample_value("logflume_drain_unacked_messages")

    async with draining(amqp_settings):
        await until(are_acknowledged)
    assert (await ready_messages(channel), await count_parts(pool)) == (0, 1)
    # The small one twice, if RabbitMQ had it before it closed the channel because of the large one.
    *small, large = (await call("list")).stdout.splitlines()
    assert small
    id_, at, size, *reason = large.split()
    assert (id_.startswith("large-"), size) == (True, str(LARGE))
    assert reason and datetime.fromisoformat(at).tzinfo
    shown = await call("show", id_)
    assert (shown.stdout_bytes, contract.ROUTING_KEY in shown.stderr) == (body, True)
    assert f"max size {LARGE // 2}" in str((await call("requeue", id_)).exception)
    limit_messages(2 * LARGE)
    assert (await call("requeue", id_)).stdout == "1 requeued\n"
    again = await (await channel.get_queue(contract.QUEUE)).get()
    await again.ack()
    assert (again.body, again.timestamp.timestamp()) == (body, 1000)
    assert (await call("drop", "--all")).stdout == f"{len(small)} dropped\n"


async def test_an_unknown_id_and_a_missing_id_are_errors(call, broken):
    unknown = await call("drop", "0123")
    assert "id 0123; see `logflume rejected list`" in str(unknown.exception)
    assert "or --all" in (await call("drop")).stderr
