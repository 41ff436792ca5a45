"""The queue that keeps what breaks the wire contract, with its bytes and the reason."""

from datetime import UTC, datetime
from typing import Any

import structlog
from aio_pika import DeliveryMode, Message
from aio_pika.abc import AbstractChannel, AbstractExchange

from drain.deliveries import Delivery
from drain.metrics import REJECTS
from logflume import contract
from logflume.amqp import Publisher
from logflume.errors import ComponentError

log = structlog.get_logger()

# What one header may take of a frame; the original ones are kept as far as they are plain.
HEADER_BYTES = 1024
HEADERS = 32
REASON, AT = "x-reject-reason", "x-reject-at"
KEPT, REQUEUED = REJECTS.labels("kept"), REJECTS.labels("requeued")


class Rejects:
    """Publishes rejects, over a connection of its own.

    RabbitMQ stops reading from connections that publish when it runs out of memory or disk: the
    drain's acknowledgements must not wait behind a reject just then.
    """

    def __init__(self, url: str) -> None:
        self._publisher = Publisher(url, "logflume rejects", _declare)

    async def keep(self, message: Delivery, reason: str) -> bool:
        """Keep a message; False where RabbitMQ does not take it now."""
        try:
            await self._publisher.publish(_kept(message, reason), contract.DEAD_LETTER_QUEUE)
        except ComponentError as error:
            REQUEUED.inc()
            log.warning("reject_not_kept", reason=reason, error=str(error))
            return False
        KEPT.inc()
        log.warning("part_rejected", reason=reason, bytes=len(message.body))
        return True

    async def close(self) -> None:
        """Close the connection; the next reject makes a new one."""
        await self._publisher.close()


async def _declare(channel: AbstractChannel) -> AbstractExchange:
    await channel.declare_queue(contract.DEAD_LETTER_QUEUE, durable=True)
    return channel.default_exchange


def _kept(message: Delivery, reason: str) -> Message:
    properties = message.read()
    return Message(
        message.body,
        headers={
            **_plain(properties.headers),
            REASON: reason[:HEADER_BYTES],
            AT: datetime.now(UTC).isoformat(),
        },
        content_type=properties.content_type,
        type=properties.type,
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
