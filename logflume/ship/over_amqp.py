"""Parts over AMQP with publisher confirms; its libraries are imported only if it is used."""

import asyncio
from collections.abc import Callable

from logflume import amqp
from logflume.contract import ROUTING_KEY, PartMessage
from logflume.domain import Total as SentTotal
from logflume.errors import ComponentError
from logflume.ship.transport import Answer, PartTooLarge, Total


class AmqpTransport:
    """Publishes parts as a runner does; RabbitMQ sets no pace."""

    retry_after = 0.0

    def __init__(self, url: str, job_id: int, uuid: str) -> None:
        self._runner = asyncio.Runner()
        self._publisher = amqp.Publisher(url, "logflume ship", amqp.declare)
        self._job_id = job_id
        self._uuid = uuid

    def send(self, number: int, content: bytes, total: Total | None, timeout: float) -> Answer:  # noqa: ARG002 - the publisher has its own
        """Publish a part, as `Transport.send` describes."""
        part = PartMessage.of(
            self._job_id, number, content, uuid=self._uuid, final=total is not None
        )
        if total:
            part.total = SentTotal(**total)
        try:
            self._runner.run(self._publisher.publish(amqp.part_message(part), ROUTING_KEY))
        except ComponentError as error:
            if amqp.message_limit(error):
                raise PartTooLarge(str(error)) from error
            raise
        if total is not None:
            self._runner.run(self._publisher.close())
        return Answer()

    def idle(self, wait: Callable[[], object]) -> None:
        """Wait in a thread: the connection needs heartbeats."""
        self._runner.run(asyncio.to_thread(wait))
