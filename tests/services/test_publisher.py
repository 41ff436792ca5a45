"""A RabbitMQ that goes away at any moment of a connection: who waits is told, by one error."""

import asyncio
import itertools

import aio_pika
import pytest
from pydantic import SecretStr

from drain.drain import Drain
from logflume import amqp, contract
from logflume.amqp import Publisher
from logflume.errors import ComponentError
from tests.support.soak.proxy import Proxy
from tests.support.waiting import until


@pytest.fixture
async def proxy(servers):
    made = Proxy(servers.ports["amqp"])
    await made.start()
    yield made
    made.close()


@pytest.fixture
def url(amqp_url, servers, proxy):
    return amqp_url.replace(f":{servers.ports['amqp']}/", f":{proxy.port}/")


@pytest.fixture
async def publisher(url):
    made = Publisher(url, "logflume test", amqp.declare)
    yield made
    await made.close()


def message() -> aio_pika.Message:
    return aio_pika.Message(b"{}")


async def waiting(publisher, proxy) -> asyncio.Task[None]:
    """A caller that waits for a confirmation which does not come."""
    await publisher.publish(message(), contract.ROUTING_KEY)
    proxy.turn("stall")
    waits = asyncio.create_task(publisher.publish(message(), contract.ROUTING_KEY))
    channel = await publisher._channel.get_underlay_channel()

    async def is_out() -> bool:
        return bool(channel.confirmations)

    await until(is_out)
    return waits


async def test_who_waits_on_a_connection_that_another_gives_up_is_told(publisher, proxy):
    waits = await waiting(publisher, proxy)
    await publisher.close()
    with pytest.raises(ComponentError):
        await waits
    proxy.turn("flow")
    await publisher.publish(message(), contract.ROUTING_KEY)


async def test_a_caller_that_is_cancelled_is_no_connection_lost(publisher, proxy):
    waits = await waiting(publisher, proxy)
    waits.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waits
    proxy.turn("flow")


async def test_a_broker_may_go_at_every_step_of_a_handshake(publisher, proxy):
    """Between two frames or in the middle of one."""
    for halves in itertools.count():
        proxy.break_off(halves)
        try:
            await publisher.publish(message(), contract.ROUTING_KEY)
        except ComponentError:
            continue
        break
    assert halves > 10


async def test_a_drain_is_told_of_it_too(amqp_settings, url, pool, proxy):
    amqp = amqp_settings.amqp.model_copy(update={"url": SecretStr(url)})
    drain = Drain(amqp, amqp_settings.drain, pool, None)  # type: ignore[arg-type]
    for halves in itertools.count():
        proxy.break_off(halves)
        try:
            session = await drain._connect()
        except ComponentError:
            continue
        break
    await session.close()
    assert halves > 10


@pytest.mark.parametrize(
    "error", [StopAsyncIteration(), Exception(), asyncio.CancelledError(), ConnectionError("gone")]
)
async def test_whatever_the_library_raises_is_one_error(error):
    with pytest.raises(ComponentError), amqp.reaching("RabbitMQ"):
        raise error


async def test_a_mistake_of_ours_is_not_taken_for_it():
    with pytest.raises(KeyError), amqp.reaching("RabbitMQ"):
        raise KeyError
