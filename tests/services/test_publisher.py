"""RabbitMQ disappears at any step of a connection: callers get a ComponentError."""

import asyncio
import itertools
from types import SimpleNamespace

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
    proxy = Proxy(servers.ports["amqp"])
    await proxy.start()
    yield proxy
    proxy.close()


@pytest.fixture
def url(amqp_url, servers, proxy):
    return amqp_url.replace(f":{servers.ports['amqp']}/", f":{proxy.port}/")


@pytest.fixture
async def publisher(url):
    publisher = Publisher(url, "logflume test", amqp.declare)
    yield publisher
    await publisher.close()


def message() -> aio_pika.Message:
    return aio_pika.Message(b"{}")


async def waiting(publisher, proxy) -> asyncio.Task[None]:
    """A caller that waits for a confirmation that never arrives."""
    await publisher.publish(message(), contract.ROUTING_KEY)
    proxy.turn("stall")
    waits = asyncio.create_task(publisher.publish(message(), contract.ROUTING_KEY))
    channel = await publisher._channel.get_underlay_channel()

    async def is_out() -> bool:
        return bool(channel.confirmations)

    await until(is_out)
    return waits


async def test_closing_a_connection_is_an_error_for_its_waiting_callers(publisher, proxy):
    waits = await waiting(publisher, proxy)
    await publisher.close()
    with pytest.raises(ComponentError):
        await waits
    proxy.turn("flow")
    await publisher.publish(message(), contract.ROUTING_KEY)


async def test_cancelling_a_caller_is_not_a_lost_connection(publisher, proxy):
    waits = await waiting(publisher, proxy)
    waits.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waits
    proxy.turn("flow")


async def test_a_publisher_survives_a_broker_that_disappears_at_any_step_of_the_handshake(
    publisher, proxy
):
    """Between two frames, and inside one."""
    for halves in itertools.count():
        proxy.break_off(halves)
        try:
            await publisher.publish(message(), contract.ROUTING_KEY)
        except ComponentError:
            continue
        break
    assert halves > 10


async def test_a_drain_survives_it_too(amqp_settings, url, pool, proxy):
    # Only `run` closes the connections to the management API.
    changed = {"url": SecretStr(url), "management_url": None}
    amqp = amqp_settings.amqp.model_copy(update=changed)
    drain = Drain(amqp, amqp_settings.drain, pool, SimpleNamespace(pending=0))  # type: ignore[arg-type]
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
async def test_errors_of_the_library_become_component_errors(error):
    with pytest.raises(ComponentError), amqp.reaching("RabbitMQ"):
        raise error


async def test_other_errors_are_not_translated():
    with pytest.raises(KeyError), amqp.reaching("RabbitMQ"):
        raise KeyError
