"""RabbitMQ: the topology and messages of parts, one error type, and confirmed publishing."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime
from urllib.parse import urlsplit

import aio_pika
from aio_pika import DeliveryMode, ExchangeType, Message
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractExchange
from aio_pika.exceptions import CONNECTION_EXCEPTIONS
from aiormq.abc import FieldTable
from aiormq.exceptions import ChannelPreconditionFailed, InvalidFrameError
from pamqp.commands import Connection

from logflume import contract
from logflume.errors import ComponentError

CONNECT_SECONDS = 10
PUBLISH_SECONDS = 5
QUORUM_ADVICE = (
    "runners and logflume declare this queue without a type, so it gets the vhost's default. To "
    "use a quorum queue, make that the default queue type of the vhost (`rabbitmqctl "
    "update_vhost_metadata VHOST --default-queue-type quorum`; before RabbitMQ 3.12 only "
    "`add_vhost` has this option); otherwise empty and delete the queue"
)
MESSAGE_LIMIT = re.compile(r"message size \d+ is larger than .*max size (\d+)")
# A routing key that no queue has.
NO_QUEUE = "logflume.check"

Declare = Callable[[AbstractChannel], Awaitable[AbstractExchange]]


async def declare(channel: AbstractChannel) -> AbstractExchange:
    """Declare exchange and queue as every runner does; the arguments must match theirs exactly."""
    exchange = await channel.declare_exchange(contract.EXCHANGE, ExchangeType.TOPIC, durable=True)
    queue = await channel.declare_queue(contract.QUEUE, durable=True)
    await queue.bind(exchange, contract.ROUTING_KEY)
    return exchange


def part_message(part: contract.PartMessage, published_at: datetime | None = None) -> Message:
    """Make the AMQP message of a part, with a runner's properties; published now by default."""
    return Message(
        part.encode(),
        content_type=contract.CONTENT_TYPE,
        type=contract.MESSAGE_TYPE,
        timestamp=published_at or datetime.now(UTC),
        delivery_mode=DeliveryMode.PERSISTENT,
    )


def describe(url: str) -> str:
    """The broker's name for messages to people, without user and password."""
    parts = urlsplit(url)
    port = parts.port or (5671 if parts.scheme == "amqps" else 5672)
    return f"RabbitMQ at {parts.hostname}:{port}{parts.path}"


@contextmanager
def reaching(where: str) -> Iterator[None]:
    """Translate every error of a missing or lost connection; the text begins with `where`.

    Raises:
        ComponentError: RabbitMQ is unreachable, refuses, or closed the connection.
    """
    try:
        yield
    except (*CONNECTION_EXCEPTIONS, TimeoutError, ValueError) as error:
        raise ComponentError(f"{where}: {describe_error(error)}") from error
    except asyncio.CancelledError as error:
        # The library also cancels the tasks that wait on a connection when it is closed.
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise ComponentError(f"{where}: the connection was closed") from error
    except Exception as error:
        # The library raises a bare Exception if the broker disappears between two frames.
        if type(error) is not Exception:
            raise
        raise ComponentError(f"{where}: the broker ended the connection") from error


@asynccontextmanager
async def connecting(url: str, name: str) -> AsyncIterator[AbstractConnection]:
    """Hold a connection with this name, and translate errors as `reaching` does.

    Raises:
        ComponentError: RabbitMQ is unreachable, refuses, or closed the connection.
    """
    with reaching(describe(url)):
        async with asyncio.timeout(CONNECT_SECONDS):
            connection = await aio_pika.connect(url, client_properties={"connection_name": name})
        async with connection:
            yield connection


def watch_alarms(connection: AbstractConnection, on_change: Callable[[str], None]) -> None:
    """Call `on_change` with the reason of an alarm that blocks this connection, "" at its end."""

    async def blocked(frame: Connection.Blocked) -> None:
        on_change(frame.reason)

    async def unblocked(_: Connection.Unblocked) -> None:
        on_change("")

    assert connection.transport  # noqa: S101 - just connected
    # aiormq only logs these frames: its own handlers are replaced (tests/unit/test_amqp_hooks.py).
    for name, handler in (("blocked", blocked), ("unblocked", unblocked)):
        setattr(connection.transport.connection, f"_Connection__handle_connection_{name}", handler)
    connection.close_callbacks.add(lambda *_: on_change(""))


def describe_error(error: BaseException) -> str:
    """The error's text, or its type if it has none; with the fix, where only we know it."""
    text = str(error) or type(error).__name__
    if isinstance(error, ChannelPreconditionFailed) and "'x-queue-type'" in text:
        return f"{text}; {QUORUM_ADVICE}"
    if isinstance(error, InvalidFrameError):
        # Its text is only a frame. Of the handshake, just the last step fails in this way.
        return "refuses the vhost: create it, or grant this user permissions in it"
    return text


def message_limit(error: ComponentError) -> int | None:
    """RabbitMQ's `max_message_size` in bytes, if the error is that a message exceeds it."""
    limit = MESSAGE_LIMIT.search(str(error))
    return int(limit[1]) if limit else None


class Publisher:
    """Publishes with confirms over one connection, opened on demand.

    `declare` creates the exchange that it publishes to. Under a memory or disk alarm RabbitMQ stops
    reading from connections that publish, and reports that to them: calls then fail at once.
    """

    def __init__(self, url: str, name: str, declare: Declare) -> None:
        self._url = url
        self._name = name
        self._declare = declare
        self._connection: AbstractConnection | None = None
        self._channel: AbstractChannel | None = None
        self._exchange: AbstractExchange | None = None
        self._connecting = asyncio.Lock()
        self._limits: set[asyncio.Timeout] = set()
        self._alarm = ""

    async def publish(self, message: Message, routing_key: str) -> None:
        """Publish a message and wait until RabbitMQ confirms that it is in a queue.

        Raises:
            ComponentError: it was not confirmed; RabbitMQ may have stored it nevertheless.
        """
        async with self._reaching() as exchange:
            await exchange.publish(message, routing_key)

    async def check(self) -> None:
        """Check that RabbitMQ is reachable and accepts messages; publishes one to no queue.

        Raises:
            ComponentError: it is not, or does not; names an alarm.
        """
        async with self._reaching():
            assert self._channel  # noqa: S101 - just connected
            to = self._channel.default_exchange
            await to.publish(Message(b""), NO_QUEUE, mandatory=False)

    @asynccontextmanager
    async def _reaching(self) -> AsyncIterator[AbstractExchange]:
        used: AbstractExchange | None = None
        try:
            with reaching(describe(self._url)):
                self._check_alarm()
                async with asyncio.timeout(PUBLISH_SECONDS) as limit:
                    self._limits.add(limit)
                    try:
                        used = await self._connected()
                        yield used
                    finally:
                        self._limits.discard(limit)
        except ComponentError:
            self._check_alarm()
            # Another call that failed may have reconnected already: close only what was used here.
            if used is not None and used is self._exchange:
                await self.close()
            raise

    def _check_alarm(self) -> None:
        if self._alarm:
            raise ComponentError(
                f"{describe(self._url)}: accepts no messages because of an alarm: {self._alarm}; "
                "see `rabbitmq-diagnostics alarms`"
            )

    def _set_alarm(self, reason: str) -> None:
        self._alarm = reason
        if not reason:
            self._exchange = None  # connect again: calls of this connection were given up
            return
        for limit in self._limits:
            if not limit.expired():
                limit.reschedule(asyncio.get_running_loop().time())

    async def _connected(self) -> AbstractExchange:
        async with self._connecting:
            if self._exchange is None or self._channel is None or self._channel.is_closed:
                await self.close()
                try:
                    await self._connect()
                except BaseException:
                    await self.close()
                    raise
            assert self._exchange  # noqa: S101 - just declared
            return self._exchange

    async def _connect(self) -> None:
        properties: FieldTable = {"connection_name": self._name}
        self._connection = await aio_pika.connect(self._url, client_properties=properties)
        watch_alarms(self._connection, self._set_alarm)
        self._channel = await self._connection.channel(on_return_raises=True)
        self._exchange = await self._declare(self._channel)

    async def close(self) -> None:
        """Close the connection; the next message opens a new one."""
        connection, self._connection = self._connection, None
        self._channel = self._exchange = None
        self._alarm = ""
        if connection is not None:
            with suppress(ComponentError), reaching(describe(self._url)):
                async with asyncio.timeout(PUBLISH_SECONDS):
                    await connection.close()
