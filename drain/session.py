"""One channel to RabbitMQ: what is received on it becomes batches, and is acknowledged on it."""

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import structlog
from aio_pika.abc import AbstractConnection
from aiormq.abc import AbstractChannel as Channel
from aiormq.abc import DeliveredMessage

from drain import metrics
from drain.batch import AckLedger, Batch, Batcher, Reject
from drain.deliveries import Connection, Delivery
from drain.flow_control import Room
from drain.flush import Flusher
from drain.signals import Signaller
from logflume import amqp, contract
from logflume.domain import Part
from logflume.errors import ComponentError, InvalidMessage
from logflume.settings.groups import DrainSettings

log = structlog.get_logger()

# How long the last flushes may take once the session is told to end.
STOP_SECONDS = 20
CLOSE_SECONDS = 3
# How long a reject that RabbitMQ does not take is held before it goes back to the queue.
REQUEUE_SECONDS = 1
MICROSECOND = timedelta(microseconds=1)


class Session:
    """One channel: what is received on it is acknowledged on it or not at all.

    `lost` is set once it is gone, `why` tells the reason; `acked`: something was stored.
    """

    def __init__(  # noqa: PLR0913, PLR0917
        self,
        connection: Connection,
        channel: Channel,
        settings: DrainSettings,
        room: Room,
        flusher: Flusher,
        signaller: Signaller,
    ) -> None:
        self.lost = asyncio.Event()
        self.why = ""
        self.acked = False
        self._connection = connection
        self._channel = channel
        self._settings = settings
        self._room = room
        self._flusher = flusher
        self._signaller = signaller
        self._batcher = Batcher(settings.batch_parts, settings.batch_bytes)
        self._full: deque[Batch] = deque()
        self._overdue = False
        self._ended = False
        self._acks = AckLedger()
        self._flushes: set[asyncio.Task[None]] = set()
        self._received_at = datetime.now(UTC)
        self._refused: list[int] = []
        self._next_size = 0
        self._adjusting: asyncio.Task[None] | None = None
        self._room_made = asyncio.Event()
        self._is_ending = False
        self._queues: list[str] = []
        self._consumer_tags: list[str] = []

    async def start(self, queues: list[str]) -> None:
        """Consume these queues, with one prefetch for all of them."""
        self._queues = queues
        self._connection.frames.takes = self._takes
        self._connection.frames.receive = self._receive
        self._channel.on_consumer_cancel_callbacks.add(self._cancelled)
        await self._consume()

    async def _consume(self) -> None:
        # RabbitMQ counts for each consumer: together they hold no more than `prefetch`.
        share = max(1, self._room.prefetch // len(self._queues))
        await self._channel.basic_qos(prefetch_count=share)
        for queue in self._queues:
            begun = await self._channel.basic_consume(queue, _not_called)
            self._consumer_tags.append(begun.consumer_tag or "")

    async def _cancel(self) -> None:
        while self._consumer_tags:
            await self._channel.basic_cancel(self._consumer_tags[-1])
            self._consumer_tags.pop()

    async def queue(self) -> tuple[int, int, int]:
        """Messages that wait in the queues, consumers of the one that has the fewest, and rejects.

        Raises:
            ComponentError: RabbitMQ does not answer.
        """
        with amqp.reaching("RabbitMQ"):
            # A channel of its own: one that is given up in the middle of a question is closed.
            async with self._connection.channel(publisher_confirms=False) as channel:
                found = [
                    (await channel.declare_queue(name, passive=True)).declaration_result
                    for name in self._queues
                ]
                # Declared as for the first reject: a queue that is not there is an error in
                # RabbitMQ's log each time that somebody looks.
                queue = await channel.declare_queue(contract.DEAD_LETTER_QUEUE, durable=True)
        messages = sum(one.message_count or 0 for one in found)
        consumers = min(one.consumer_count or 0 for one in found)
        return messages, consumers, queue.declaration_result.message_count or 0

    def lose(self, _: object, error: BaseException | None) -> None:
        """Take note that the channel or its connection is gone."""
        if not self.lost.is_set():
            self.why = str(error) or type(error).__name__
            self.lost.set()

    async def _cancelled(self, _: object) -> None:
        """The broker ended a consumer, because its queue was deleted or moved: connect anew."""
        self.lose(None, ConnectionError("the broker cancelled a consumer"))

    async def end(self) -> None:
        """Flush and acknowledge what was received, if that is still possible, and close."""
        try:
            if not self.lost.is_set():
                with amqp.reaching("RabbitMQ"):
                    async with asyncio.timeout(STOP_SECONDS):
                        await self._flush_all()
        except ComponentError as error:
            # Nothing is lost: what is not acknowledged comes again.
            log.warning("flush_given_up", error=str(error))
        finally:
            self._ended = True
            tasks = [*self._flushes, *([self._adjusting] if self._adjusting else [])]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await close(self._connection)

    async def _flush_all(self) -> None:
        self._is_ending = True
        self._room_made.set()
        if self._adjusting:
            await asyncio.wait([self._adjusting])
        await self._cancel()
        if batch := self._batcher.take():
            self._full.append(batch)
        self._dispatch()
        while self._flushes:
            await asyncio.wait(self._flushes, return_when=asyncio.FIRST_COMPLETED)

    def _takes(self, size: int) -> bool:
        # What comes after a message that was refused is refused as well: one acknowledgement
        # covers all tags before it.
        return not self._refused and self._room.fits(size)

    def _receive(self, message: Delivery) -> None:
        if self.lost.is_set() or self._ended:
            return  # it comes again, to the next session
        if message.is_refused:
            if not self._refused:
                self._next_size = message.size
            self._refused.append(message.tag)
            self._adjust(self._room.shrink)
            return
        self._room.take(len(message.body))
        part = self._decode(message)
        was_empty = not len(self._batcher)
        batch = self._batcher.add(message, part)
        if batch:
            self._full.append(batch)
            self._dispatch()
        elif was_empty:
            asyncio.get_running_loop().call_later(self._settings.batch_seconds, self._due)

    def _decode(self, message: Delivery) -> Part | Reject:
        # No two parts are received at the same time: the content rule asks which came last.
        self._received_at = max(datetime.now(UTC), self._received_at + MICROSECOND)
        try:
            return contract.decode(message.body, message.published_at, self._received_at)
        except InvalidMessage as error:
            return Reject(message, str(error))
        except Exception as error:  # noqa: BLE001 - a tag in no batch would be acked unstored
            log.error("decode_broke", error=type(error).__name__)
            return Reject(message, f"cannot be read: {type(error).__name__}")

    def _adjust(self, change: Callable[[], None]) -> None:
        """Have another prefetch, after what was refused is given back."""
        if self._adjusting is None and not self._is_ending:
            change()
            self._adjusting = asyncio.create_task(self._consume_anew())
            self._adjusting.add_done_callback(self._adjusted)

    async def _consume_anew(self) -> None:
        # A prefetch is that of consumers that come after it. None may be there when messages are
        # given back either: RabbitMQ would send them again at once.
        await self._cancel()
        for tag in self._refused:
            await self._channel.basic_nack(tag, requeue=True, wait=False)
        if self._refused:
            metrics.GIVEN_BACK.inc(len(self._refused))
            log.info("room_is_full", given_back=len(self._refused), prefetch=self._room.prefetch)
        self._refused.clear()
        # What was refused first comes first again: there must be room for it.
        while not (
            self._is_ending or (self._room.is_half_free and self._room.fits(self._next_size))
        ):
            self._room_made.clear()
            await self._room_made.wait()
        self._next_size = 0
        if not self._is_ending:
            await self._consume()

    def _adjusted(self, task: asyncio.Task[None]) -> None:
        self._adjusting = None
        if not task.cancelled() and (error := task.exception()):
            self.lose(None, error)
        elif self._refused:  # while it consumed again
            self._adjust(self._room.shrink)

    def _due(self) -> None:
        self._overdue = True
        self._dispatch()

    def _dispatch(self) -> None:
        """Start as many flushes as may be in flight: full batches first, then what is due."""
        while not self._ended and len(self._flushes) < self._settings.flushes:
            batch = self._full.popleft() if self._full else None
            if batch is None and self._overdue:
                batch, self._overdue = self._batcher.take(), False
            if batch is None:
                return
            self._acks.opened(batch)
            self._flusher.opened(batch)
            flush = asyncio.create_task(self._flush(batch))
            self._flushes.add(flush)
            metrics.FLUSHES.inc()
            flush.add_done_callback(self._flushed)

    def _flushed(self, flush: asyncio.Task[None]) -> None:
        self._flushes.discard(flush)
        metrics.FLUSHES.dec()
        if not flush.cancelled() and (error := flush.exception()):
            self.lose(None, error)
        if not self.lost.is_set():
            self._dispatch()

    async def _flush(self, batch: Batch) -> None:
        for job_id, added in (await self._flusher.store(batch)).items():
            self._signaller.add(job_id, added)
        if unkept := await self._flusher.keep_rejects(batch):
            # They go back to the queue, one by one, so that what came after them can be acked.
            await asyncio.sleep(REQUEUE_SECONDS)
            for message in unkept:
                await self._channel.basic_nack(message.tag, requeue=True)
        if done := self._acks.done(batch):
            await self._channel.basic_ack(done[-1].last_tag, multiple=True)
            self.acked = True
            self._room.free(done)
            self._room_made.set()
            if self._room.may_grow:
                self._adjust(self._room.grow)


async def _not_called(_: DeliveredMessage) -> None:
    """Deliveries do not get as far as aiormq."""


async def close(connection: AbstractConnection) -> None:
    """Close a connection, without waiting long for a broker that may not answer."""
    with suppress(ComponentError), amqp.reaching("RabbitMQ"):
        async with asyncio.timeout(CLOSE_SECONDS):
            await connection.close()
