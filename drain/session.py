"""One channel to RabbitMQ: its messages become batches and are acknowledged on it."""

import asyncio
from contextlib import suppress
from datetime import UTC, datetime
from enum import Enum, auto

import structlog
from aio_pika.abc import AbstractConnection
from aiormq.abc import AbstractChannel as Channel

from drain import metrics
from drain.batch import AckLedger, Acks, Batch, Batcher, DeadLetter
from drain.consumer import Consumer
from drain.dead_letter_limit import DeadLetterLimit
from drain.deliveries import Connection, Delivery
from drain.flow_control import InFlightWindow
from drain.flush import Flusher
from logflume import amqp, contract
from logflume.backoff import Backoff
from logflume.domain import Part
from logflume.errors import ComponentError, InvalidMessage
from logflume.settings.stages import DrainSettings
from logflume.tasks import cancel

log = structlog.get_logger()

# How long the last flushes may take when the session is closed.
STOP_SECONDS = 20
CLOSE_SECONDS = 3
# How long a message that could not be dead-lettered is held before that is tried again.
FIRST_RETRY_SECONDS, MAX_RETRY_SECONDS = 1.0, 30.0


class State(Enum):
    """The state of a session."""

    OPEN = auto()
    """Consumes, flushes and acknowledges."""
    STOPPING = auto()
    """Flushes and acknowledges what was received."""
    OVER_LIMIT = auto()
    """Too many messages were invalid: only flushes in flight are completed."""
    LOST = auto()
    """The channel is gone: what is held is stored, nothing can be acknowledged."""
    CLOSED = auto()


class Session:
    """What is received on a channel is stored, and acknowledged on it while it is open.

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
        self._window = window
        self._flusher = flusher
        self._consumer = Consumer(
            channel, connection.frames, queues, window, self._receive, self.fail
        )
        self._batcher = Batcher(settings.batch_parts, settings.batch_bytes)
        self._acks = AckLedger()
        self._flushes: dict[asyncio.Task[None], Batch] = {}
        self._held: list[DeadLetter] = []
        self._dead_lettering: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start to consume."""
        await self._consumer.start()

    def hold_refused(self) -> None:
        """Requeue messages that do not fit the window only once they do."""
        self._consumer.holds_refused = True

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
        if self.state is State.OPEN:
            self.state = State.STOPPING
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await self._stop_consuming()
                await self.store_held()
        except TimeoutError:
            # What is not acknowledged is delivered again, unless its queue was deleted.
            log.warning(
                "flush_abandoned",
                error=f"Postgres did not accept all batches within {STOP_SECONDS} s",
                next="RabbitMQ delivers what was not acknowledged again",
                messages=self.held_messages,
            )
        finally:
            self.state = State.CLOSED
            await cancel([*self._flushes, *filter(None, [self._dead_lettering])])
            await self._consumer.close()
            await close(self.connection)

    async def _stop_consuming(self) -> None:
        if self.state is State.LOST:
            return
        try:
            with amqp.reaching("RabbitMQ"):
                await self._consumer.stop()
        except ComponentError as error:
            self.fail(error)

    async def store_held(self) -> None:
        """Flush the batches that are held; returns once Postgres accepted them.

        After the channel is gone too: the queue may have been deleted, which appears empty to an
        operator while its messages are held here. If RabbitMQ delivers them again, the content
        rule ignores the duplicates.
        """
        self._expire()
        while self._flushes:
            await asyncio.wait(self._flushes, return_when=asyncio.FIRST_COMPLETED)

    @property
    def held_messages(self) -> int:
        """How many messages are received and not acknowledged."""
        return self._window.messages

    def _receive(self, message: Delivery) -> None:
        if not self.is_open:
            return  # it is delivered again to the next session
        was_empty = self._batcher.is_empty
        if self._batcher.add(message, self._decode(message)):
            self._dispatch()
        elif was_empty:
            asyncio.get_running_loop().call_later(self._settings.batch_seconds, self._expire)

    def _decode(self, message: Delivery) -> Part | DeadLetter:
        try:
            return contract.decode(message.body, message.published_at, datetime.now(UTC))
        except InvalidMessage as error:
            return DeadLetter(message, str(error))
        except Exception as error:  # noqa: BLE001 - a tag in no batch would be acked unstored
            log.error("decode_failed", error=type(error).__name__, next="dead-letters the message")
            return DeadLetter(message, f"cannot be read: {type(error).__name__}")

    def _expire(self) -> None:
        self._batcher.expire()
        self._dispatch()

    def _dispatch(self) -> None:
        """Start flushes, as many as may be in flight."""
        is_flushing = self.is_open or self.state is State.LOST
        while is_flushing and len(self._flushes) < self._settings.flushes:
            batch = self._batcher.next(self._flushes.values())
            if batch is None:
                return
            self._acks.open(batch)
            self._flusher.open(batch)
            flush = asyncio.create_task(self._flush(batch))
            self._flushes[flush] = batch
            metrics.FLUSHES.inc()
            flush.add_done_callback(self._flushed)

    def _flushed(self, flush: asyncio.Task[None]) -> None:
        del self._flushes[flush]
        metrics.FLUSHES.dec()
        if not flush.cancelled() and (error := flush.exception()):
            self.fail(error)
        self._dispatch()

    async def _flush(self, batch: Batch) -> None:
        try:
            held = await self._flusher.flush(batch)
        except Exception as error:
            log.exception("flush_crashed", messages=batch.count, next="starts a new session")
            reason = f"a batch was not stored because of {type(error).__name__} (see flush_crashed)"
            raise ComponentError(reason) from error
        if self.state is State.LOST:
            return
        await self._acknowledge(self._acks.complete(batch, (letter.message for letter in held)))
        self._hold(held)
        self._count(batch.count - len(held), len(batch.invalid) - len(held))

    async def _acknowledge(self, acks: Acks) -> None:
        if acks.tags:
            await self._consumer.acknowledge(acks)
            self.has_acknowledged = True

    def _count(self, messages: int, invalid: int) -> None:
        self._limit.record(messages, invalid)
        if self._limit.is_exceeded and self.state is State.OPEN:
            self._end(State.OVER_LIMIT, "too many invalid messages")

    def _hold(self, letters: list[DeadLetter]) -> None:
        """Hold messages until RabbitMQ accepts them as dead letters."""
        self._held += letters
        if self._held and self._dead_lettering is None:
            self._dead_lettering = asyncio.create_task(self._dead_letter_again())
            self._dead_lettering.add_done_callback(self._dead_lettered)

    async def _dead_letter_again(self) -> None:
        backoff = Backoff(MAX_RETRY_SECONDS, FIRST_RETRY_SECONDS)
        while self._held:
            await asyncio.sleep(backoff.next())
            letters, self._held = self._held, []
            refused = await self._flusher.dead_letter(letters)
            self._held += refused
            still_held = {letter.message.tag for letter in refused}
            for letter in letters:
                if letter.message.tag not in still_held:
                    await self._acknowledge(self._acks.release(letter.message))
                    self._count(1, 1)

    def _dead_lettered(self, task: asyncio.Task[None]) -> None:
        self._dead_lettering = None
        if not task.cancelled() and (error := task.exception()):
            self.fail(error)


async def close(connection: AbstractConnection) -> None:
    """Close a connection, without waiting long for a broker that may not answer."""
    with suppress(ComponentError), amqp.reaching("RabbitMQ"):
        async with asyncio.timeout(CLOSE_SECONDS):
            await connection.close()
