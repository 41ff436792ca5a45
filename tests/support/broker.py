"""RabbitMQ's management API and a publisher of parts."""

import asyncio
import struct
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import aio_pika
import httpx
from aio_pika.abc import AbstractChannel

from logflume import amqp, contract
from logflume.settings import Settings
from logflume_cli.devstack.home import Home
from logflume_cli.devstack.processes import find_program
from logflume_cli.devstack.rabbitmq import INSTALL, SCRIPTS, rabbitmq


def manage(servers: Home, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
    """Call RabbitMQ's management API."""
    login, _, address = servers.management_url.removeprefix("http://").rpartition("@")
    user, _, password = login.partition(":")
    url = f"http://{address}/api/{path}"
    # Loading CA certificates, which are not needed here, takes longer than the call.
    answer = httpx.request(method, url, auth=(user, password), json=body, timeout=30, verify=False)
    answer.raise_for_status()
    return answer.json() if answer.content else None


def rabbitmqctl(servers: Home, *arguments: str) -> str:
    """Run RabbitMQ's command on the stack's broker."""
    command = [find_program("rabbitmqctl", [SCRIPTS], INSTALL), "-q", *arguments]
    env = rabbitmq(servers).env
    return subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout


async def close_connections(servers: Home, vhost: str, client: str) -> None:
    """Close the connections of one of our clients at the broker."""
    # Not by the management API, which does not know names if it may not collect metrics.
    close = f"""
        [rabbit_networking:close_connection(Pid, "test")
         || Pid <- rabbit_networking:connections(),
            [{{vhost, <<"{vhost}">>}}, {{client_properties, Properties}}]
                <- [rabbit_networking:connection_info(Pid, [vhost, client_properties])],
            lists:member({{<<"connection_name">>, longstr, <<"{client}">>}}, Properties)]."""
    assert "ok" in await asyncio.to_thread(rabbitmqctl, servers, "eval", close)


@asynccontextmanager
async def open_channel(settings: Settings) -> AsyncIterator[AbstractChannel]:
    """A channel whose vhost has the exchange and the queue of the parts."""
    async with await aio_pika.connect(settings.amqp.url.get_secret_value()) as connection:
        channel = await connection.channel()
        await amqp.declare(channel)
        yield channel


async def publish(channel: AbstractChannel, *bodies: bytes, **properties: Any) -> None:
    """Publish with confirms: all messages are in the queue when this returns."""
    exchange = await channel.get_exchange(contract.EXCHANGE)
    for body in bodies:
        await exchange.publish(aio_pika.Message(body, **properties), contract.ROUTING_KEY)


def message(job_id: int, number: int | str, log: str = "", **fields: Any) -> bytes:
    """The body of a part's message."""
    part = {"id": job_id, "number": number, "log": log, "uuid": "u", **fields}
    return contract.PartMessage(**part).encode()


async def publish_raw(settings: Settings, body: bytes, properties: bytes) -> None:
    """Publish with these raw property bytes, using a minimal AMQP client."""
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
    await read()  # channel closed: everything before was processed
    writer.close()


async def ready_messages(channel: AbstractChannel) -> int:
    """How many messages are ready in the queue."""
    queue = await channel.declare_queue(contract.QUEUE, durable=True)
    return queue.declaration_result.message_count or 0
