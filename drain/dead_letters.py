"""The dead-letter queue: publishing invalid messages to it, and an operator's access to them."""

import hashlib
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, Protocol

import asyncpg
import structlog
from aio_pika import DeliveryMode, Message
from aio_pika.abc import AbstractChannel, AbstractExchange, AbstractIncomingMessage

from db import dead_letters as large
from db.connect import Connection
from db.errors import FAILURES
from drain.batch import DeadLetter
from drain.metrics import INVALID_MESSAGES
from logflume import amqp, contract
from logflume.errors import ComponentError

log = structlog.get_logger()

# Limits of the original headers that are copied, so that they fit a frame.
HEADER_BYTES = 1024
HEADERS = 32
# Postgres may need that long for a large message.
STORE_SECONDS = 60
REASON, AT = "x-reject-reason", "x-reject-at"
# Who sent it. RabbitMQ verifies a `user_id`, and accepts it from no other user.
SENDER = {name: f"x-reject-{name.replace('_', '-')}" for name in ("user_id", "routing_key")}
OURS = (REASON, AT, *SENDER.values())


class DeadLetterPublisher:
    """Publishes invalid messages to the dead-letter queue over a separate connection.

    RabbitMQ stops reading from connections that publish when it runs out of memory or disk; the
    drain's acknowledgements must not wait behind a dead letter at such a time.

    RabbitMQ may deliver a message that it does not accept again: its `max_message_size` was larger
    before an upgrade to RabbitMQ 4. Such messages go to Postgres.
    """

    def __init__(self, url: str, pool: asyncpg.Pool) -> None:
        self._publisher = amqp.Publisher(url, "logflume dead letters", _declare)
        self._pool = pool
        self._max_bytes = math.inf

    async def publish(self, letter: DeadLetter) -> bool:
        """Publish a message with its reason; False if that is not possible now."""
        try:
            if not self._is_too_large(letter):
                await self._send(letter)
            if self._is_too_large(letter):
                await self._store(letter)
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

    def _is_too_large(self, letter: DeadLetter) -> bool:
        return len(letter.message.body) > self._max_bytes

    async def _send(self, letter: DeadLetter) -> None:
        try:
            await self._publisher.publish(_with_reason(letter), contract.DEAD_LETTER_QUEUE)
        except ComponentError as error:
            # Everyone who was publishing on the channel receives the error about one message.
            self._max_bytes = amqp.message_limit(error) or self._max_bytes
            if not self._is_too_large(letter):
                raise

    async def _store(self, letter: DeadLetter) -> None:
        message = letter.message
        properties = message.read()
        sender = _describe_sender(properties.user_id, message.routing_key, properties.app_id)
        row = (letter.reason, sender, message.published_at, message.body)
        try:
            await large.store(self._pool, *row, STORE_SECONDS)
        except FAILURES as error:
            reason = str(error).partition("\n")[0] or type(error).__name__
            raise ComponentError(f"Postgres: {reason}") from error

    async def check(self) -> None:
        """Check that RabbitMQ accepts messages.

        Raises:
            ComponentError: it is unreachable or does not; names an alarm.
        """
        await self._publisher.check()

    async def close(self) -> None:
        """Close the connection; the next dead letter opens a new one."""
        await self._publisher.close()


class Rejected(Protocol):
    """A dead-lettered message, for operators."""

    id: str
    """Identifies the message on the command line."""
    at: str
    reason: str
    sender: str
    """The user, routing key and application, as far as known."""
    size: int

    async def read(self) -> bytes:
        """Its body."""
        ...

    async def requeue(self) -> None:
        """Publish it to the drains unchanged; an interruption may duplicate it, which is safe."""

    async def drop(self) -> None:
        """Delete it permanently."""


class QueuedDeadLetter:
    """A message in the dead-letter queue.

    It returns to its position in the queue unless it is requeued or dropped. Its id is a hash of
    its body and time.
    """

    def __init__(self, message: AbstractIncomingMessage, exchange: AbstractExchange) -> None:
        self._message = message
        self._exchange = exchange
        self.size = len(message.body)
        self.at = str(message.headers.get(AT, ""))
        self.reason = str(message.headers.get(REASON, ""))
        known = {name: str(message.headers.get(it, "")) for name, it in SENDER.items()}
        self.sender = _describe_sender(**known, app_id=message.app_id)
        self.id = hashlib.sha256(self.at.encode() + message.body).hexdigest()[:12]

    async def read(self) -> bytes:
        """Its body."""
        return self._message.body

    async def requeue(self) -> None:
        """Publish it to the drains unchanged."""
        original = self._message
        headers = {name: it for name, it in original.headers.items() if name not in OURS}
        copy = Message(
            original.body,
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


class StoredDeadLetter:
    """A message that is in Postgres because it is too large for RabbitMQ."""

    def __init__(
        self, row: large.LargeDeadLetter, database: Connection, exchange: AbstractExchange
    ) -> None:
        self._row = row
        self._database = database
        self._exchange = exchange
        self.size = row.bytes
        self.at = row.rejected_at.isoformat()
        self.reason = row.reason
        self.sender = row.sender
        self.id = f"large-{row.id}"

    async def read(self) -> bytes:
        """Its body."""
        return await large.read_body(self._database, self._row.id) or b""

    async def requeue(self) -> None:
        """Publish it to the drains; RabbitMQ accepts it if `max_message_size` was raised."""
        copy = Message(
            await self.read(),
            content_type=contract.CONTENT_TYPE,
            type=contract.MESSAGE_TYPE,
            timestamp=self._row.published_at,
            delivery_mode=DeliveryMode.PERSISTENT,
        )
        await self._exchange.publish(copy, contract.ROUTING_KEY)
        await self.drop()

    async def drop(self) -> None:
        """Delete it permanently."""
        await large.delete(self._database, self._row.id)


@asynccontextmanager
async def dead_letters(url: str, database: Connection) -> AsyncIterator[AsyncIterator[Rejected]]:
    """Iterate over the messages that are dead-lettered now: in the queue, then in Postgres.

    Raises:
        ComponentError: RabbitMQ is unreachable or refuses.
    """
    async with amqp.connecting(url, "logflume rejected") as connection:
        channel = await connection.channel(on_return_raises=True)
        yield _each(channel, await amqp.declare(channel), database)


async def _each(
    channel: AbstractChannel, exchange: AbstractExchange, database: Connection
) -> AsyncIterator[Rejected]:
    queue = await channel.declare_queue(contract.DEAD_LETTER_QUEUE, durable=True)
    # No more than the present count: what is requeued and dead-lettered again is not visited twice.
    for _ in range(queue.declaration_result.message_count or 0):
        message = await queue.get(fail=False)
        if message is None:
            break
        yield QueuedDeadLetter(message, exchange)
    async for row in large.read_all(database):
        yield StoredDeadLetter(row, database, exchange)


def _describe_sender(user_id: str | None, routing_key: str, app_id: str | None) -> str:
    known = {"user_id": user_id, "routing_key": routing_key, "app_id": app_id}
    return ", ".join(f"{name} {value}" for name, value in known.items() if value)


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
