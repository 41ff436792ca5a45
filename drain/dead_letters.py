"""The dead-letter queue: publishing invalid messages to it, and an operator's access to them."""

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import structlog
from aio_pika import DeliveryMode, Message
from aio_pika.abc import AbstractChannel, AbstractExchange, AbstractIncomingMessage

from drain.batch import DeadLetter
from drain.metrics import INVALID_MESSAGES
from logflume import amqp, contract
from logflume.errors import ComponentError

log = structlog.get_logger()

# Limits of the original headers that are copied, so that they fit a frame.
HEADER_BYTES = 1024
HEADERS = 32
REASON, AT = "x-reject-reason", "x-reject-at"
# Who sent it. RabbitMQ verifies a `user_id`, and accepts it from no other user.
SENDER = {name: f"x-reject-{name.replace('_', '-')}" for name in ("user_id", "routing_key")}
OURS = (REASON, AT, *SENDER.values())


class DeadLetterPublisher:
    """Publishes invalid messages to the dead-letter queue over a separate connection.

    RabbitMQ stops reading from connections that publish when it runs out of memory or disk; the
    drain's acknowledgements must not wait behind a dead letter at such a time.
    """

    def __init__(self, url: str) -> None:
        self._publisher = amqp.Publisher(url, "logflume dead letters", _declare)

    async def publish(self, letter: DeadLetter) -> bool:
        """Publish a message with its reason; False if RabbitMQ does not accept it now."""
        message = _with_reason(letter)
        try:
            await self._publisher.publish(message, contract.DEAD_LETTER_QUEUE)
        except ComponentError as error:
            log.warning(
                "dead_letter_not_published", invalid_because=letter.reason, error=str(error)
            )
            return False
        INVALID_MESSAGES.labels("dead_lettered").inc()
        properties = letter.message.read()
        log.warning(
            "message_invalid",
            reason=letter.reason,
            bytes=len(letter.message.body),
            user_id=properties.user_id,
            app_id=properties.app_id,
            routing_key=letter.message.routing_key,
        )
        return True

    async def check(self) -> None:
        """Check that RabbitMQ accepts messages.

        Raises:
            ComponentError: it is unreachable or does not; names an alarm.
        """
        await self._publisher.check()

    async def close(self) -> None:
        """Close the connection; the next dead letter opens a new one."""
        await self._publisher.close()


class QueuedDeadLetter:
    """A message in the dead-letter queue.

    It returns to its position in the queue unless it is requeued or dropped.
    """

    def __init__(self, message: AbstractIncomingMessage, exchange: AbstractExchange) -> None:
        self._message = message
        self._exchange = exchange
        self.body = message.body
        self.at = str(message.headers.get(AT, ""))
        self.reason = str(message.headers.get(REASON, ""))
        known = {name: str(message.headers.get(it, "")) for name, it in SENDER.items()}
        known["app_id"] = message.app_id or ""
        self.sender = ", ".join(f"{name} {value}" for name, value in known.items() if value)
        """The user, routing key and application, as far as known."""
        self.id = hashlib.sha256(self.at.encode() + self.body).hexdigest()[:12]
        """Identifies the message on the command line: a hash of its body and time."""

    async def requeue(self) -> None:
        """Publish it to the drains unchanged; an interruption may duplicate it, which is safe."""
        original = self._message
        headers = {name: it for name, it in original.headers.items() if name not in OURS}
        copy = Message(
            self.body,
            headers=headers,
            content_type=original.content_type,
            type=original.type,
            app_id=original.app_id,
            timestamp=original.timestamp,
            delivery_mode=DeliveryMode.PERSISTENT,
        )
        await self._exchange.publish(copy, contract.ROUTING_KEY)
        await original.ack()

    async def drop(self) -> None:
        """Delete it permanently."""
        await self._message.ack()


@asynccontextmanager
async def queued_dead_letters(url: str) -> AsyncIterator[AsyncIterator[QueuedDeadLetter]]:
    """Iterate over the messages that are in the dead-letter queue now, oldest first.

    Raises:
        ComponentError: RabbitMQ is unreachable or refuses.
    """
    async with amqp.connecting(url, "logflume rejected") as connection:
        channel = await connection.channel(on_return_raises=True)
        yield _each(channel, await amqp.declare(channel))


async def _each(
    channel: AbstractChannel, exchange: AbstractExchange
) -> AsyncIterator[QueuedDeadLetter]:
    queue = await channel.declare_queue(contract.DEAD_LETTER_QUEUE, durable=True)
    # No more than the present count: what is requeued and dead-lettered again is not visited twice.
    for _ in range(queue.declaration_result.message_count or 0):
        message = await queue.get(fail=False)
        if message is None:
            return
        yield QueuedDeadLetter(message, exchange)


async def _declare(channel: AbstractChannel) -> AbstractExchange:
    await channel.declare_queue(contract.DEAD_LETTER_QUEUE, durable=True)
    return channel.default_exchange


def _with_reason(letter: DeadLetter) -> Message:
    properties = letter.message.read()
    return Message(
        letter.message.body,
        headers={
            **_plain(properties.headers),
            **({SENDER["user_id"]: properties.user_id} if properties.user_id else {}),
            SENDER["routing_key"]: letter.message.routing_key,
            REASON: letter.reason[:HEADER_BYTES],
            AT: datetime.now(UTC).isoformat(),
        },
        content_type=properties.content_type,
        type=properties.type,
        app_id=properties.app_id,
        timestamp=properties.timestamp,
        delivery_mode=DeliveryMode.PERSISTENT,
    )


def _plain(headers: dict[str, Any]) -> dict[str, Any]:
    """The headers that can be published unchanged, as many as fit a frame."""
    plain = {
        name: value
        for name, value in headers.items()
        if isinstance(value, bool | int | float)
        or (isinstance(value, str) and len(value.encode()) <= HEADER_BYTES)
    }
    return dict(list(plain.items())[:HEADERS])
