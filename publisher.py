"""Publishing to RabbitMQ with confirms: what was published is kept, or it is said so."""

import asyncio
from collections.abc import Awaitable, Callable

import aio_pika
from aio_pika import Message
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractExchange
from aiormq.abc import FieldTable
from aiormq.exceptions import AMQPError

import wire
from errors import ComponentError

PUBLISH_SECONDS = 5

Declare = Callable[[AbstractChannel], Awaitable[AbstractExchange]]


class Publisher:
    """One connection, made when it is needed; `declare` makes what it publishes to."""

    def __init__(self, url: str, name: str, declare: Declare) -> None:
        self._url = url
        self._name = name
        self._declare = declare
        self._connection: AbstractConnection | None = None
        self._exchange: AbstractExchange | None = None
        self._connecting = asyncio.Lock()

    async def publish(self, message: Message, routing_key: str) -> None:
        """Publish a message, and return once RabbitMQ has it safe in a queue.

        Raises:
            ComponentError: RabbitMQ did not say so; it may have the message all the same.
        """
        try:
            async with asyncio.timeout(PUBLISH_SECONDS):
                exchange = await self._connected()
                await exchange.publish(message, routing_key)
        except (AMQPError, OSError, TimeoutError, ValueError) as error:
            await self.close()
            said = str(error) or type(error).__name__
            raise ComponentError(f"{wire.describe(self._url)}: {said}") from error

    async def _connected(self) -> AbstractExchange:
        async with self._connecting:
            if self._exchange is None:
                properties: FieldTable = {"connection_name": self._name}
                self._connection = await aio_pika.connect(self._url, client_properties=properties)
                self._exchange = await self._declare(
                    await self._connection.channel(on_return_raises=True)
                )
            return self._exchange

    async def close(self) -> None:
        """Close the connection; the next message makes a new one."""
        connection, self._connection, self._exchange = self._connection, None, None
        if connection is not None:
            try:
                async with asyncio.timeout(PUBLISH_SECONDS):
                    await connection.close()
            except (AMQPError, OSError, TimeoutError):
                return
