"""Suspends consuming after the dead-letter limit, until a command or a set time ends it.

The command is a message to a fanout exchange to which each suspended drain binds a queue of its
own, so one command resumes all drains, and the sender learns whether there is one.
"""

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import structlog
from aio_pika import ExchangeType, Message
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractExchange
from aio_pika.exceptions import PublishError

from logflume import amqp, contract
from logflume.backoff import Backoff
from logflume.errors import ComponentError
from logflume.tasks import first

log = structlog.get_logger()

POLL_SECONDS = 0.5
MAX_BACKOFF_SECONDS = 5.0


class Suspension:
    """One suspension of a drain; `connection` is open while commands can be received."""

    def __init__(self, url: str, cause: str, seconds: float) -> None:
        self.connection: AbstractConnection | None = None
        self._url = url
        self._seconds = seconds
        until = datetime.now(UTC) + timedelta(seconds=seconds)
        self.reason = (
            f"{cause}: consuming is suspended until {until:%H:%M:%S} UTC; see `logflume rejected "
            "list`, fix what publishes them, then run `logflume rejected resume`"
        )

    async def wait(self) -> None:
        """Return once an operator resumes the drains, or the time is over."""
        await first(asyncio.sleep(self._seconds), self._resume_requested())

    async def _resume_requested(self) -> None:
        backoff = Backoff(MAX_BACKOFF_SECONDS)
        while True:
            try:
                async with amqp.connecting(self._url, "logflume suspended") as self.connection:
                    await self._receive(self.connection)
                    return
            except ComponentError as error:
                delay = backoff.next()
                log.warning("amqp_unreachable", error=str(error), retry_in=delay)
                await asyncio.sleep(delay)
            finally:
                self.connection = None

    async def _receive(self, connection: AbstractConnection) -> None:
        channel = await connection.channel(publisher_confirms=False)
        # Not a server-named queue, so that permissions on `reporting` are enough.
        name = f"{contract.CONTROL_EXCHANGE}.{uuid4().hex}"
        queue = await channel.declare_queue(name, exclusive=True)
        await queue.bind(await _declare(channel))
        # Polling also notices a lost connection.
        while await queue.get(no_ack=True, fail=False) is None:  # noqa: ASYNC110
            await asyncio.sleep(POLL_SECONDS)


async def resume_drains(url: str) -> bool:
    """Resume all suspended drains; False if there is none.

    Raises:
        ComponentError: RabbitMQ is unreachable or refuses.
    """
    async with amqp.connecting(url, "logflume rejected") as connection:
        exchange = await _declare(await connection.channel(on_return_raises=True))
        try:
            await exchange.publish(Message(b"resume"), "")
        except PublishError:
            return False
        return True


async def _declare(channel: AbstractChannel) -> AbstractExchange:
    return await channel.declare_exchange(
        contract.CONTROL_EXCHANGE, ExchangeType.FANOUT, durable=True
    )
