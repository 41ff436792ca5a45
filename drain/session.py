"""One channel to RabbitMQ: its messages become batches and are acknowledged on it."""

import asyncio
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from enum import Enum, auto

import structlog
from aio_pika.abc import AbstractConnection
from aiormq.abc import AbstractChannel as Channel

from drain import metrics
from drain.batch import AckLedger, Batch, Batcher, DeadLetter
from drain.consumer import Consumer
from drain.dead_letter_limit import DeadLetterLimit
from drain.deliveries import Connection, Delivery
from drain.flow_control import InFlightWindow
from drain.flush import Flusher
from logflume import amqp, contract
from logflume.domain import Part
from logflume.errors import ComponentError, InvalidMessage
from logflume.settings.groups import DrainSettings

log = structlog.get_logger()

# How long the last flushes may take when the session is closed.
STOP_SECONDS = 20
CLOSE_SECONDS = 3
# How long a message that could not be dead-lettered is held before it is requeued.
REQUEUE_SECONDS = 1
MICROSECOND = timedelta(microseconds=1)


class State(Enum):
    """The state of a session."""

    OPEN = auto()
    """Consumes, flushes and acknowledges."""
    STOPPING = auto()
    """Flushes and acknowledges what was received."""
    OVER_LIMIT = auto()
    """Too many messages were invalid: only flushes in flight are completed."""
    LOST = auto()
    """The channel is gone: nothing can be acknowledged."""
    CLOSED = auto()


class Session:
    """What is received on a channel is acknowledged on it, or delivered again to another session.

    `ended` is set when the session leaves the state OPEN by itself; `reason` says why.
    `has_acknowledged` is set once something was stored.
    """

    def __init__(  # noqa: PLR0913, PLR0917
        self,
        connection: Connection,
        channel: Channel,
        queues: list[str],
        settings: DrainSettings,
        window: InFlightWindow,
        limit: DeadLetterLimit,
        flusher: Flusher,
    ) -> None:
        self.connection = connection
        self.state = State.OPEN
        self.ended = asyncio.Event()
        self.reason = ""
        self.has_acknowledged = False
        self._channel = channel
        self._settings = settings
        self._limit = limit
        self._flusher = flusher
        self._consumer = Consumer(
            channel, connection.frames, queues, window, self._receive, self.fail
        )
        self._batcher = Batcher(settings.batch_parts, settings.batch_bytes)
        self._acks = AckLedger()
        self._flushes: set[asyncio.Task[None]] = set()
        self._received_at = datetime.now(UTC)

    async def start(self) -> None:
        """Start to consume."""
        await self._consumer.start()

    @property
    def is_open(self) -> bool:
        """Whether messages are held and can still be acknowledged."""
        return self.state in {State.OPEN, State.STOPPING}

    def fail(self, error: BaseException | None) -> None:
        """Record that the channel or its connection is gone."""
        if self.is_open:
            self._end(State.LOST, str(error) or type(error).__name__)

    def _end(self, state: State, reason: str) -> None:
        self.state = state
        self.reason = reason
        self.ended.set()

    async def close(self) -> None:
        """Flush and acknowledge what was received, as far as the state allows, and disconnect."""
        try:
            if self.state is not State.LOST:
                with amqp.reaching("RabbitMQ"):
                    async with asyncio.timeout(STOP_SECONDS):
                        await self._finish()
        except ComponentError as error:
            # Nothing is lost: what is not acknowledged is delivered again.
            log.warning("flush_abandoned", error=str(error))
        finally:
            self.state = State.CLOSED
            for flush in self._flushes:
                flush.cancel()
            await asyncio.gather(*self._flushes, return_exceptions=True)
            await self._consumer.close()
            await close(self.connection)

    async def _finish(self) -> None:
        if self.state is State.OPEN:
            self.state = State.STOPPING
        await self._consumer.stop()
        self._expire()
        while self._flushes:
            await asyncio.wait(self._flushes, return_when=asyncio.FIRST_COMPLETED)

    def _receive(self, message: Delivery) -> None:
        if not self.is_open:
            return  # it is delivered again to the next session
        was_empty = self._batcher.is_empty
        if self._batcher.add(message, self._decode(message)):
            self._dispatch()
        elif was_empty:
            asyncio.get_running_loop().call_later(self._settings.batch_seconds, self._expire)

    def _decode(self, message: Delivery) -> Part | DeadLetter:
        # Every part has its own time: the content rule asks which was received last.
        self._received_at = max(datetime.now(UTC), self._received_at + MICROSECOND)
        try:
            return contract.decode(message.body, message.published_at, self._received_at)
        except InvalidMessage as error:
            return DeadLetter(message, str(error))
        except Exception as error:  # noqa: BLE001 - a tag in no batch would be acked unstored
            log.error("decode_failed", error=type(error).__name__)
            return DeadLetter(message, f"cannot be read: {type(error).__name__}")

    def _expire(self) -> None:
        self._batcher.expire()
        self._dispatch()

    def _dispatch(self) -> None:
        """Start flushes, as many as may be in flight."""
        while self.is_open and len(self._flushes) < self._settings.flushes:
            batch = self._batcher.next()
            if batch is None:
                return
            self._acks.open(batch)
            self._flusher.open(batch)
            flush = asyncio.create_task(self._flush(batch))
            self._flushes.add(flush)
            metrics.FLUSHES.inc()
            flush.add_done_callback(self._flushed)

    def _flushed(self, flush: asyncio.Task[None]) -> None:
        self._flushes.discard(flush)
        metrics.FLUSHES.dec()
        if not flush.cancelled() and (error := flush.exception()):
            self.fail(error)
        self._dispatch()

    async def _flush(self, batch: Batch) -> None:
        if requeued := await self._flusher.flush(batch):
            # One by one, so that the messages after them can be acknowledged.
            await asyncio.sleep(REQUEUE_SECONDS)
            await self._consumer.requeue(message.tag for message in requeued)
        if acknowledged := self._acks.complete(batch):
            await self._channel.basic_ack(acknowledged[-1].last_tag, multiple=True)
            self.has_acknowledged = True
            self._consumer.acknowledged(acknowledged)
        # Requeued messages are delivered and counted again.
        self._limit.record(batch.count - len(requeued), len(batch.invalid) - len(requeued))
        if self._limit.is_exceeded and self.state is State.OPEN:
            self._end(State.OVER_LIMIT, "too many invalid messages")


async def close(connection: AbstractConnection) -> None:
    """Close a connection, without waiting long for a broker that may not answer."""
    with suppress(ComponentError), amqp.reaching("RabbitMQ"):
        async with asyncio.timeout(CLOSE_SECONDS):
            await connection.close()
