"""Looking at the rejects that RabbitMQ keeps, for an operator."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aio_pika
from aio_pika import DeliveryMode, Message
from aio_pika.abc import AbstractChannel, AbstractExchange, AbstractIncomingMessage

from drain.dead_letters import AT, REASON
from logflume import amqp, contract

CONNECT_SECONDS = 10


class KeptReject:
    """One message of the queue; it goes back to its place when the operator has looked."""

    def __init__(self, message: AbstractIncomingMessage, exchange: AbstractExchange) -> None:
        self._message = message
        self._exchange = exchange
        self.body = message.body
        self.at = str(message.headers.get(AT, ""))
        self.reason = str(message.headers.get(REASON, ""))
        self.id = hashlib.sha256(self.at.encode() + self.body).hexdigest()[:12]
        """What it is called on the command line; no two rejects are the same at the same time."""

    async def requeue(self) -> None:
        """Send it on to the drains, as it came. Twice where we are cut off in between: no harm."""
        came = self._message
        headers = {name: value for name, value in came.headers.items() if name not in (REASON, AT)}
        again = Message(
            self.body,
            headers=headers,
            content_type=came.content_type,
            type=came.type,
            timestamp=came.timestamp,
            delivery_mode=DeliveryMode.PERSISTENT,
        )
        await self._exchange.publish(again, contract.ROUTING_KEY)
        await came.ack()

    async def drop(self) -> None:
        """Delete it for good."""
        await self._message.ack()


@asynccontextmanager
async def kept_rejects(url: str) -> AsyncIterator[AsyncIterator[KeptReject]]:
    """Go through the messages that lie in the queue now, oldest first.

    Those that are neither sent on nor dropped lie there again afterwards, in the same order.

    Raises:
        ComponentError: RabbitMQ is out of reach or refuses.
    """
    with amqp.reaching(amqp.describe(url)):
        async with asyncio.timeout(CONNECT_SECONDS):
            connection = await aio_pika.connect(
                url, client_properties={"connection_name": "logflume rejected"}
            )
        async with connection:
            channel = await connection.channel(on_return_raises=True)
            yield _each(channel, await amqp.declare(channel))


async def _each(channel: AbstractChannel, exchange: AbstractExchange) -> AsyncIterator[KeptReject]:
    queue = await channel.declare_queue(contract.DEAD_LETTER_QUEUE, durable=True)
    # As many as there are now: what is sent on and rejected once more is not met again.
    for _ in range(queue.declaration_result.message_count or 0):
        message = await queue.get(fail=False)
        if message is None:
            return
        yield KeptReject(message, exchange)
