"""Names of the wire contract on RabbitMQ, shared by all who publish or consume parts."""

from urllib.parse import urlsplit

from aio_pika import ExchangeType
from aio_pika.abc import AbstractChannel, AbstractExchange

EXCHANGE = "reporting"
QUEUE = "reporting.jobs.logs"
ROUTING_KEY = QUEUE
REJECTED_QUEUE = "reporting.jobs.logs.rejected"
MESSAGE_TYPE = "job:test:log"
CONTENT_TYPE = "application/json"


async def declare(channel: AbstractChannel) -> AbstractExchange:
    """Declare exchange and queue as every runner does; arguments must match theirs exactly."""
    exchange = await channel.declare_exchange(EXCHANGE, ExchangeType.TOPIC, durable=True)
    queue = await channel.declare_queue(QUEUE, durable=True)
    await queue.bind(exchange, ROUTING_KEY)
    return exchange


def describe(url: str) -> str:
    """Name the broker for a person, without user and password."""
    parts = urlsplit(url)
    return f"RabbitMQ at {parts.hostname}:{parts.port or 5672}{parts.path}"
