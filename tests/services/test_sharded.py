"""Sharded queues on real RabbitMQ: every shard is consumed, also while their number changes."""

import asyncio
import contextlib
from collections import Counter
from contextlib import AsyncExitStack, asynccontextmanager
from urllib.parse import urlsplit

import aio_pika
import pytest
from pydantic import SecretStr

from drain import shards
from drain.shards import Shards
from logflume import contract
from logflume.amqp import part_message
from logflume.contract import PartMessage
from logflume.errors import ComponentError, SettingsError
from logflume.settings.servers import AmqpSettings
from tests.support.broker import manage
from tests.support.services import draining
from tests.support.waiting import until


@pytest.fixture
def settings(amqp_settings, monkeypatch):
    monkeypatch.setattr(shards, "POLL_SECONDS", 0.1)
    return amqp_settings


@pytest.fixture
async def exchange(channel):
    """The sharded exchange, as a runner declares it."""
    return await channel.declare_exchange(contract.SHARDED_EXCHANGE, "x-modulus-hash", durable=True)


def managed_by(settings, url: str):
    amqp = settings.amqp.model_copy(update={"management_url": SecretStr(url)})
    return settings.model_copy(update={"amqp": amqp})


async def publish(exchange, job_id: int, number: int, routing_key: str | None = None) -> None:
    message = part_message(PartMessage.of(job_id, number, f"{number},".encode(), uuid="u"))
    await exchange.publish(message, routing_key or str(job_id))


async def stored(pool) -> Counter:
    """How many times each part is stored."""
    rows = await pool.fetch("SELECT job_id, number FROM log_parts p JOIN logs l ON l.id = p.log_id")
    return Counter((row["job_id"], row["number"]) for row in rows)


def once(jobs, numbers) -> Counter:
    return Counter((job, number) for job in jobs for number in numbers)


async def holds(awaitable, value) -> bool:
    return await awaitable == value


async def holds_any(pool) -> bool:
    return await pool.fetchval("SELECT EXISTS (SELECT FROM log_parts)")


def set_shards(servers, vhost: str, count: int) -> None:
    rule = {**shards.RULE, "definition": {"shards-per-node": count}}
    manage(servers, "PUT", f"policies/{vhost}/logs-sharding", rule)


def shard_names(count: int) -> list[str]:
    return [f"{shards.PREFIX}logflume@localhost - {number}" for number in range(count)]


async def queues(channel, count: int) -> list[tuple[int, int]]:
    """The consumers and messages of each shard, from the queues themselves."""
    found = [await channel.declare_queue(name, passive=True) for name in shard_names(count)]
    results = [queue.declaration_result for queue in found]
    return [(result.consumer_count, result.message_count) for result in results]


async def consumers(channel, count: int) -> list[int]:
    return [consumers for consumers, _ in await queues(channel, count)]


async def consumed(settings, *names: str) -> bool:
    """Whether these queues exist and have consumers; the management API would lag behind."""
    async with await aio_pika.connect(settings.amqp.url.get_secret_value()) as connection:
        channel = await connection.channel()
        try:
            found = [await channel.declare_queue(name, passive=True) for name in names]
        except aio_pika.exceptions.ChannelNotFoundEntity:
            return False
    return all(queue.declaration_result.consumer_count for queue in found)


async def test_every_shard_is_consumed_and_the_plain_queue_too(
    settings, channel, exchange, servers, name, pool, numbers
):
    jobs = [next(numbers) for _ in range(40)]
    plain = await channel.get_exchange(contract.EXCHANGE)
    async with draining(settings, sharded=True):
        await until(lambda: consumed(settings, *shard_names(2)))
        for job in jobs:
            await publish(exchange, job, 0)
            await publish(plain, job, 1, contract.ROUTING_KEY)
        await until(lambda: holds(stored(pool), once(jobs, range(2))))
        assert await queues(channel, 2) == [(1, 0), (1, 0)]
    policy = manage(servers, "GET", f"policies/{name}/logs-sharding")
    assert policy["pattern"] == "^reporting.jobs.logs_sharded$"
    assert policy["definition"] == {"shards-per-node": 2}
    assert (policy["priority"], policy["apply-to"]) == (-8, "exchanges")


async def test_each_part_is_stored_once_while_shards_and_drains_change(
    settings, channel, exchange, servers, name, pool, numbers
):
    jobs, published = [next(numbers) for _ in range(20)], 0

    async def publish_until(met) -> None:
        nonlocal published
        async with asyncio.timeout(30):
            while True:
                for job in jobs:
                    await publish(exchange, job, published)
                published += 1
                if await met():
                    return

    async with AsyncExitStack() as later:
        async with draining(settings, sharded=True):
            await until(lambda: consumed(settings, *shard_names(2)))
            await publish_until(lambda: holds_any(pool))
            set_shards(servers, name, 4)
            await publish_until(lambda: holds(consumers(channel, 4), [1, 1, 1, 1]))
            # Shards beyond the policy still receive parts, but not consumers of the pseudo-queue.
            set_shards(servers, name, 2)
            await later.enter_async_context(draining(settings, sharded=True))
            await publish_until(lambda: holds(consumers(channel, 4), [2, 2, 2, 2]))
        await publish_until(lambda: holds(consumers(channel, 4), [1, 1, 1, 1]))
        await until(lambda: holds(stored(pool), once(jobs, range(published))))
        deleted = await channel.get_queue(shard_names(4)[3])
        await deleted.delete(if_unused=False, if_empty=False)
        await publish_until(lambda: holds(consumers(channel, 3), [1, 1, 1]))
        await until(lambda: holds(stored(pool), once(jobs, range(published))))
    assert await queues(channel, 3) == [(0, 0), (0, 0), (0, 0)]


async def test_an_existing_policy_is_not_changed(settings, exchange, servers, name):
    set_shards(servers, name, 3)
    before = manage(servers, "GET", f"policies/{name}/logs-sharding")
    async with draining(settings, sharded=True):
        await until(lambda: consumed(settings, *shard_names(3)))
    assert manage(servers, "GET", f"policies/{name}/logs-sharding") == before


async def test_without_the_management_api_it_consumes_the_shards_found_before(
    settings, channel, exchange, servers, name, pool, numbers
):
    async with (
        proxied(servers) as (url, close),
        draining(managed_by(settings, url), sharded=True),
    ):
        await until(lambda: consumed(settings, *shard_names(2)))
        await close()
        await (await channel.get_queue(contract.QUEUE)).delete(if_unused=False, if_empty=False)
        await until(lambda: consumed(settings, contract.QUEUE))
        jobs = [next(numbers) for _ in range(20)]
        for job in jobs:
            await publish(exchange, job, 0)
        await until(lambda: holds(stored(pool), once(jobs, [0])))


@pytest.mark.parametrize(
    "response",
    [
        "503 Service Unavailable\r\nContent-Length: 0\r\n\r\n",
        "404 Not Found\r\nContent-Length: 2\r\n\r\n{}",
        "302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n",
        "200 OK\r\nContent-Length: 0\r\n\r\n",
        '200 OK\r\nContent-Length: 13\r\n\r\n{"error": "x"}',
        "200 OK\r\nContent-Length: 5\r\n\r\n[1,2]",
    ],
    ids=["unavailable", "missing", "redirect", "empty", "object", "numbers"],
)
async def test_a_response_without_a_list_of_queues_changes_nothing(settings, response):
    async def respond(reader, writer) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 {response}".encode())
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(respond, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        finder = Shards(managed_by(settings, f"http://u:p@127.0.0.1:{port}").amqp)
        with pytest.raises(ComponentError, match="RabbitMQ's management API at"):
            await finder.find()
        finder._known = ["a shard"]
        assert await finder.find() == ["a shard"]
        await finder.close()


@asynccontextmanager
async def proxied(servers):
    """The URL of a proxy to the management API, and a function that closes it."""
    target = urlsplit(servers.management_url)
    writers = []

    async def copy(reader, writer) -> None:
        writers.append(writer)
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
        writer.close()

    async def connected(reader, writer) -> None:
        there = await asyncio.open_connection(target.hostname, target.port)
        await asyncio.gather(copy(reader, there[1]), copy(there[0], writer))

    async def close() -> None:
        server.close()
        for writer in writers:
            writer.close()
        await server.wait_closed()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    yield servers.management_url.replace(f":{target.port}", f":{port}"), close
    await close()


def test_a_missing_management_url_is_an_error():
    with pytest.raises(SettingsError, match="LOGFLUME_AMQP__MANAGEMENT_URL"):
        Shards(AmqpSettings())


@pytest.mark.parametrize(
    ("user", "port", "message"),
    [
        ("unknown", None, "status 401 for GET policies/.*policymaker"),
        ("logflume", 1, "management API at 127.0.0.1:1: "),
    ],
    ids=["refused", "unreachable"],
)
async def test_an_unusable_management_api_is_an_error_at_startup(
    settings, servers, user, port, message
):
    at = urlsplit(servers.management_url)
    url = f"http://{user}:{at.password}@{at.hostname}:{port or at.port}"
    with pytest.raises(ComponentError, match=message) as caught:
        async with draining(managed_by(settings, url), sharded=True):
            pass
    assert at.password not in str(caught.value)


async def test_another_effective_policy_is_an_error(settings, servers, name):
    rule = {**shards.RULE, "definition": {"alternate-exchange": "x"}, "priority": 9}
    manage(servers, "PUT", f"policies/{name}/other", rule)
    with pytest.raises(ComponentError, match="has no shards"):
        async with draining(settings, sharded=True):
            pass
