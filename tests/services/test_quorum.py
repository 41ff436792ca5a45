"""Quorum queues on real RabbitMQ: nothing is dropped as delivered too often."""

from contextlib import AsyncExitStack

import aio_pika
import pytest
from prometheus_client import REGISTRY
from pydantic import SecretStr

from drain import session
from drain.dead_letters import DeadLetterPublisher
from drain.queue_checks import QueueChecker
from logflume import contract
from logflume.errors import ComponentError, LogflumeError
from logflume_cli.doctor import _queues
from tests.support.broker import manage, message, open_channel, publish, rabbitmqctl, ready_messages
from tests.support.parts import count_parts, stored_content
from tests.support.processes import frozen
from tests.support.services import draining
from tests.support.waiting import until

LIMIT = 2
MIB = 1024 * 1024


@pytest.fixture
def quorum(settings, servers, name):
    """Settings with a vhost of quorum queues by default, with a limit of deliveries."""
    rabbitmqctl(servers, "add_vhost", name, "--default-queue-type", "quorum")
    permissions = {"configure": ".*", "write": ".*", "read": ".*"}
    manage(servers, "PUT", f"permissions/{name}/logflume", permissions)
    limit = {"pattern": ".*", "definition": {"delivery-limit": LIMIT}, "apply-to": "queues"}
    manage(servers, "PUT", f"policies/{name}/limit", limit)
    amqp = settings.amqp.model_copy(update={"url": SecretStr(servers.amqp_url + name)})
    return settings.model_copy(update={"amqp": amqp})


@pytest.fixture
async def channel(quorum):
    async with open_channel(quorum) as channel:
        yield channel


async def test_messages_that_do_not_fit_wait_at_the_drain(servers, quorum, channel, pool, job_id):
    """Drains without room do not pass messages to each other until the limit is reached."""
    limits = {"held_bytes": 4 * MIB, "batch_bytes": MIB}
    settings = quorum.model_copy(update={"drain": quorum.drain.model_copy(update=limits)})
    before = _requeued()
    async with AsyncExitStack() as drains:
        for _ in range(LIMIT + 2):
            await drains.enter_async_context(draining(settings))
        with frozen(servers, "postgres"):
            await publish(channel, *(message(job_id, n, "x" * MIB) for n in range(40)))
            await until(_has_refused)
            # The drains would have requeued them before RabbitMQ answers this often.
            for _ in range(100):
                await ready_messages(channel)
            assert _requeued() == before
        await until(lambda: _stored(pool, 40))
        assert _requeued() > before
    assert await stored_content(pool, job_id) == b"x" * 40 * MIB


async def _has_refused() -> bool:
    return 0 < (REGISTRY.get_sample_value("logflume_drain_prefetch_messages") or 0.0) < 100


def _requeued() -> float:
    return REGISTRY.get_sample_value("logflume_drain_requeued_messages_total") or 0.0


async def _stored(pool, count: int) -> bool:
    return await count_parts(pool) == count


async def test_a_refused_dead_letter_is_not_delivered_again(
    quorum, channel, pool, job_id, monkeypatch
):
    refusals = 0
    original = DeadLetterPublisher.publish

    async def counted(*args) -> bool:
        nonlocal refusals
        is_accepted = await original(*args)
        refusals += not is_accepted
        return is_accepted

    async def has_refused() -> bool:
        return refusals > 2 * LIMIT

    monkeypatch.setattr(DeadLetterPublisher, "publish", counted)
    monkeypatch.setattr(session, "FIRST_RETRY_SECONDS", 0.01)
    # A drain declares it as a quorum queue, which fails.
    unusable = await channel.declare_queue(
        contract.DEAD_LETTER_QUEUE, durable=True, arguments={"x-queue-type": "classic"}
    )
    await publish(channel, message(job_id, 0, "a"), b"invalid")
    async with draining(quorum):
        await until(has_refused)
        await unusable.delete()
        await until(lambda: _dead_letters(channel, 1))
    assert (await count_parts(pool), await ready_messages(channel)) == (1, 0)


async def _dead_letters(channel, count: int) -> bool:
    queue = await channel.declare_queue(contract.DEAD_LETTER_QUEUE, durable=True)
    return queue.declaration_result.message_count == count


async def test_doctor_names_the_policy(quorum, channel):
    with pytest.raises(LogflumeError, match=r"after 2 deliveries.*policy limit"):
        await _queues(quorum, fix=False)
    checker = QueueChecker(quorum.amqp)
    assert (await checker.check([contract.QUEUE])).has_quorum
    await checker.close()


async def test_without_the_management_api_nothing_is_checked(quorum, channel):
    amqp = quorum.amqp.model_copy(update={"management_url": None})
    assert await QueueChecker(amqp).check([contract.QUEUE]) == ([], False)


async def test_a_queue_declared_as_quorum_beforehand_is_explained(amqp_settings, amqp_url):
    async with await aio_pika.connect(amqp_url) as connection:
        channel = await connection.channel()
        await channel.declare_queue(
            contract.QUEUE, durable=True, arguments={"x-queue-type": "quorum"}
        )
    with pytest.raises(ComponentError, match="--default-queue-type quorum"):
        await _queues(amqp_settings, fix=False)
    with pytest.raises(ComponentError, match="--default-queue-type quorum"):
        async with draining(amqp_settings):
            pass
