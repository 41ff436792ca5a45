"""The queue that keeps what breaks the wire contract, with its bytes and the reason."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import aio_pika
import structlog
from aio_pika import DeliveryMode, Message
from aio_pika.abc import AbstractConnection, AbstractExchange
from aiormq.abc import DeliveredMessage, FieldTable
from aiormq.exceptions import AMQPError

import wire

log = structlog.get_logger()

PUBLISH_SECONDS = 5
# What one header may take of a frame; the original ones are kept as far as they are plain.
HEADER_BYTES = 1024
HEADERS = 32


class Rejects:
    """Publishes rejects with confirms, over a connection of its own.

    RabbitMQ stops reading from connections that publish when it runs out of memory or disk: the
    drain's acknowledgements must not wait behind a reject just then.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: AbstractConnection | None = None
        self._exchange: AbstractExchange | None = None
        self._connecting = asyncio.Lock()

    async def keep(self, message: DeliveredMessage, reason: str) -> bool:
        """Keep a message; False where RabbitMQ does not take it now."""
        try:
            async with asyncio.timeout(PUBLISH_SECONDS):
                exchange = await self._connected()
                await exchange.publish(_kept(message, reason), wire.REJECTED_QUEUE)
        except (AMQPError, OSError, TimeoutError) as error:
            log.warning("reject_not_kept", reason=reason, error=str(error) or type(error).__name__)
            await self.close()
            return False
        log.warning("part_rejected", reason=reason, bytes=len(message.body))
        return True

    async def _connected(self) -> AbstractExchange:
        async with self._connecting:
            if self._exchange is None:
                properties: FieldTable = {"connection_name": "logflume rejects"}
                self._connection = await aio_pika.connect(self._url, client_properties=properties)
                channel = await self._connection.channel()
                await channel.declare_queue(wire.REJECTED_QUEUE, durable=True)
                self._exchange = channel.default_exchange
            return self._exchange

    async def close(self) -> None:
        """Close the connection; the next reject makes a new one."""
        connection, self._connection, self._exchange = self._connection, None, None
        if connection is not None:
            try:
                async with asyncio.timeout(PUBLISH_SECONDS):
                    await connection.close()
            except (AMQPError, OSError, TimeoutError):
                return


def _kept(message: DeliveredMessage, reason: str) -> Message:
    properties = message.header.properties
    return Message(
        message.body,
        headers={
            **_plain(properties.headers or {}),
            "x-reject-reason": reason[:HEADER_BYTES],
            "x-reject-at": datetime.now(UTC).isoformat(),
        },
        content_type=properties.content_type,
        type=properties.message_type,
        timestamp=properties.timestamp,
        delivery_mode=DeliveryMode.PERSISTENT,
    )


def _plain(headers: dict[str, Any]) -> dict[str, Any]:
    """The headers that can be sent on as they are, as many as fit a frame."""
    kept = {
        name: value
        for name, value in headers.items()
        if isinstance(value, bool | int | float)
        or (isinstance(value, str) and len(value.encode()) <= HEADER_BYTES)
    }
    return dict(list(kept.items())[:HEADERS])
