"""The drain's memory is bounded: bytes held unacknowledged, and dead letters in flight."""

import asyncio

import aio_pika
import pytest
from prometheus_client import REGISTRY

from drain.dead_letters import DeadLetterPublisher
from drain.flush import DEAD_LETTERS_AT_ONCE
from logflume import contract
from logflume.settings import Settings
from tests.support.broker import message, publish, ready_messages
from tests.support.parts import count_parts
from tests.support.services import draining
from tests.support.waiting import until

MIB = 1024 * 1024
STORM = 1500


@pytest.fixture
def settings(amqp_settings: Settings) -> Settings:
    limits = {"held_bytes": 8 * MIB, "batch_bytes": MIB, "invalid_share": 1}
    drain = amqp_settings.drain.model_copy(update=limits)
    return amqp_settings.model_copy(update={"drain": drain})


def shown(name: str) -> float:
    return REGISTRY.get_sample_value(f"logflume_drain_{name}") or 0.0


async def numbers_stored(pool) -> list[int]:
    rows = await pool.fetch("SELECT number FROM log_parts ORDER BY number")
    return [row["number"] for row in rows]


async def test_held_bytes_stay_bounded_while_postgres_is_down_and_all_is_stored_once(
    settings, channel, pool, job_id
):
    """Many large messages, one larger than the limit, then small ones."""
    await pool.execute("ALTER TABLE log_parts RENAME TO hidden")
    sizes = dict.fromkeys(range(60), MIB // 2) | {8: 9 * MIB}
    bodies = [message(job_id, number, "x" * size) for number, size in sizes.items()]
    small = [message(job_id, number, "y") for number in range(60, 600)]
    before = shown("requeued_messages_total")
    await publish(channel, *bodies, *small)
    async with draining(settings):
        await until(lambda: _is(lambda: shown("requeued_messages_total") > before))
        await until(lambda: _settled(channel, 600))
        assert 0 < shown("held_bytes") <= 8 * MIB
        # It waits instead of requesting the large message again and again.
        assert not any([await consumers(channel) for _ in range(50)])
        prefetch = shown("prefetch_messages")
        assert prefetch < settings.drain.prefetch
        await pool.execute("ALTER TABLE hidden RENAME TO log_parts")
        await until(lambda: _equals(count_parts(pool), 600))
        await until(lambda: _is(lambda: shown("held_bytes") == 0))
        # The prefetch shrank, and grew again with small messages.
        assert shown("prefetch_messages") > prefetch
    assert await numbers_stored(pool) == list(range(600))
    assert await ready_messages(channel) == 0


async def consumers(channel) -> int:
    return (
        await channel.declare_queue(contract.QUEUE, durable=True)
    ).declaration_result.consumer_count


async def _is(met) -> bool:
    return met()


async def _equals(awaitable, value) -> bool:
    return await awaitable == value


async def _settled(channel, total: int) -> bool:
    """Nothing is acknowledged; what is not held is in the queue again."""
    return await ready_messages(channel) + shown("unacked_messages") == total


async def test_a_drain_under_backpressure_stops_on_request(settings, channel, pool, job_id):
    await pool.execute("ALTER TABLE log_parts RENAME TO hidden")
    before = shown("requeued_messages_total")
    await publish(channel, *(message(job_id, n, "x" * MIB) for n in range(20)))
    async with draining(settings) as drain:
        await until(lambda: _is(lambda: shown("requeued_messages_total") > before))
        await until(lambda: _settled(channel, 20))
        drain.stop()
        await pool.execute("ALTER TABLE hidden RENAME TO log_parts")
    stored = await count_parts(pool)
    assert 0 < stored < 20
    assert await ready_messages(channel) == 20 - stored


async def test_a_storm_of_invalid_messages_is_dead_lettered_and_parts_among_it_are_stored(
    settings, channel, pool, job_id, monkeypatch
):
    in_flight = maximum = 0
    original = DeadLetterPublisher.publish

    async def counted(*args) -> bool:
        nonlocal in_flight, maximum
        in_flight += 1
        maximum = max(maximum, in_flight)
        try:
            return await original(*args)
        finally:
            in_flight -= 1

    monkeypatch.setattr(DeadLetterPublisher, "publish", counted)
    await channel.declare_queue(contract.DEAD_LETTER_QUEUE, durable=True)
    exchange = await channel.get_exchange(contract.EXCHANGE)
    bodies = [b"invalid %d " % n + bytes(2000) for n in range(STORM)]
    good = [message(job_id, n, f"{n},") for n in range(STORM // 10)]

    async def send(body: bytes) -> None:
        await exchange.publish(aio_pika.Message(body), contract.ROUTING_KEY)

    for at in range(0, STORM, 100):
        some = bodies[at : at + 100] + good[at // 10 : at // 10 + 10]
        await asyncio.gather(*map(send, some))
    async with draining(settings):
        await until(lambda: _equals(count_parts(pool), STORM // 10))
        await until(lambda: _equals(count_dead_letters(channel), STORM))
    assert 0 < maximum <= DEAD_LETTERS_AT_ONCE * settings.drain.flushes
    queue = await channel.get_queue(contract.DEAD_LETTER_QUEUE)
    dead_letters = [(await queue.get(no_ack=True)).body for _ in range(STORM)]
    assert sorted(dead_letters) == sorted(bodies)
    assert await ready_messages(channel) == 0


async def count_dead_letters(channel) -> int:
    queue = await channel.declare_queue(contract.DEAD_LETTER_QUEUE, durable=True)
    return queue.declaration_result.message_count
