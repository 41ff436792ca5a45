"""What bounds the memory of the drain: bytes that are held, and a storm of rejects."""

import asyncio

import aio_pika
import pytest
from prometheus_client import REGISTRY

from drain.dead_letters import Rejects
from drain.flush import REJECTS_AT_ONCE
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
    drain = amqp_settings.drain.model_copy(update={"held_bytes": 8 * MIB, "batch_bytes": MIB})
    return amqp_settings.model_copy(update={"drain": drain})


def shown(name: str) -> float:
    return REGISTRY.get_sample_value(f"logflume_drain_{name}") or 0.0


async def numbers_stored(pool) -> list[int]:
    rows = await pool.fetch("SELECT number FROM log_parts ORDER BY number")
    return [row["number"] for row in rows]


async def test_while_postgres_is_gone_no_more_is_held_than_may_be_and_then_all_is_stored_once(
    settings, channel, pool, job_id
):
    """Many large messages, one larger than what may be held, and small ones behind them."""
    await pool.execute("ALTER TABLE log_parts RENAME TO hidden")
    sizes = dict.fromkeys(range(60), MIB // 2) | {8: 9 * MIB}
    bodies = [message(job_id, number, "x" * size) for number, size in sizes.items()]
    small = [message(job_id, number, "y") for number in range(60, 600)]
    before = shown("given_back_messages_total")
    await publish(channel, *bodies, *small)
    async with draining(settings):
        await until(lambda: _is(lambda: shown("given_back_messages_total") > before))
        await until(lambda: _settled(channel, 600))
        assert 0 < shown("held_bytes") <= 8 * MIB
        # It does not ask for the large one again and again: it waits.
        assert not any([await consumers(channel) for _ in range(50)])
        asked_for = shown("prefetch_messages")
        assert asked_for < settings.drain.prefetch
        await pool.execute("ALTER TABLE hidden RENAME TO log_parts")
        await until(lambda: _equals(count_parts(pool), 600))
        await until(lambda: _is(lambda: shown("held_bytes") == 0))
        # Fewer were asked for meanwhile, and more again as messages were small.
        assert shown("prefetch_messages") > asked_for
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
    """Nothing is acknowledged, and what is not held waits in the queue again."""
    return await ready_messages(channel) + shown("unacked_messages") == total


async def test_a_drain_that_waits_for_room_stops_when_it_is_told_to(
    settings, channel, pool, job_id
):
    await pool.execute("ALTER TABLE log_parts RENAME TO hidden")
    before = shown("given_back_messages_total")
    await publish(channel, *(message(job_id, n, "x" * MIB) for n in range(20)))
    async with draining(settings) as drain:
        await until(lambda: _is(lambda: shown("given_back_messages_total") > before))
        await until(lambda: _settled(channel, 20))
        drain.stop()
        await pool.execute("ALTER TABLE hidden RENAME TO log_parts")
    stored = await count_parts(pool)
    assert 0 < stored < 20
    assert await ready_messages(channel) == 20 - stored


async def test_a_storm_of_rejects_is_kept_whole_and_parts_beside_it_go_through(
    settings, channel, pool, job_id, monkeypatch
):
    under_way = most = 0
    keep = Rejects.keep

    async def counted(*args) -> bool:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        try:
            return await keep(*args)
        finally:
            under_way -= 1

    monkeypatch.setattr(Rejects, "keep", counted)
    await channel.declare_queue(contract.DEAD_LETTER_QUEUE, durable=True)
    exchange = await channel.get_exchange(contract.EXCHANGE)
    bodies = [b"no part %d " % n + bytes(2000) for n in range(STORM)]
    good = [message(job_id, n, f"{n},") for n in range(STORM // 10)]

    async def send(body: bytes) -> None:
        await exchange.publish(aio_pika.Message(body), contract.ROUTING_KEY)

    for at in range(0, STORM, 100):
        some = bodies[at : at + 100] + good[at // 10 : at // 10 + 10]
        await asyncio.gather(*map(send, some))
    async with draining(settings):
        await until(lambda: _equals(count_parts(pool), STORM // 10))
        await until(lambda: _equals(kept(channel), STORM))
    assert 0 < most <= REJECTS_AT_ONCE * settings.drain.flushes
    queue = await channel.get_queue(contract.DEAD_LETTER_QUEUE)
    found = [(await queue.get(no_ack=True)).body for _ in range(STORM)]
    assert sorted(found) == sorted(bodies)
    assert await ready_messages(channel) == 0


async def kept(channel) -> int:
    queue = await channel.declare_queue(contract.DEAD_LETTER_QUEUE, durable=True)
    return queue.declaration_result.message_count
