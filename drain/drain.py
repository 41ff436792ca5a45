"""The drain's life: connect, consume, flush, acknowledge, and start over when RabbitMQ goes."""

import asyncio
from collections import deque
from datetime import UTC, datetime, timedelta

import aio_pika
import asyncpg
import structlog
from aio_pika.abc import AbstractConnection
from aiormq.abc import AbstractChannel as Channel
from aiormq.abc import DeliveredMessage
from aiormq.exceptions import AMQPError

import wire
from domain import Part
from drain.batch import AckLedger, Batch, Batcher, Reject
from drain.decode import decode, utc
from drain.flush import Flusher
from drain.signals import Signaller
from errors import ComponentError, RejectedPart
from settings import AmqpSettings, DrainSettings

log = structlog.get_logger()

CONNECT_SECONDS = 10
MAX_BACKOFF_SECONDS = 5.0
# How long the last flushes and signals may take once the drain is told to stop.
STOP_SECONDS = 20
MICROSECOND = timedelta(microseconds=1)

UNREACHABLE = (OSError, TimeoutError, AMQPError)


class Drain:
    """Consumes the queue of parts until it is told to stop."""

    def __init__(
        self,
        amqp: AmqpSettings,
        settings: DrainSettings,
        pool: asyncpg.Pool,
        signaller: Signaller,
    ) -> None:
        self._amqp = amqp
        self._settings = settings
        self._pool = pool
        self._signaller = signaller
        self._stop = asyncio.Event()

    def stop(self) -> None:
        """Stop consuming; `run` returns once what was received is stored and acknowledged."""
        self._stop.set()

    async def run(self) -> None:
        """Consume until stopped; a connection that is lost is made again.

        Raises:
            ComponentError: RabbitMQ is out of reach, or refuses us, from the start.
        """
        connection = await self._connect()
        backoff = 0.1
        while True:
            try:
                await self._consume(connection)
            except UNREACHABLE as error:
                log.warning("amqp_lost", error=str(error) or type(error).__name__)
            if self._stop.is_set():
                break
            try:
                connection = await self._connect()
                backoff = 0.1
            except ComponentError as error:
                log.warning("amqp_unreachable", error=str(error), retry_in=backoff)
                await _wait(self._stop, backoff)
                backoff = min(2 * backoff, MAX_BACKOFF_SECONDS)
        untold = await self._signaller.close(STOP_SECONDS)
        log.info("drain_stopped", logs_untold=untold)

    async def _connect(self) -> AbstractConnection:
        url = self._amqp.url.get_secret_value()
        try:
            return await aio_pika.connect(
                url, timeout=CONNECT_SECONDS, client_properties={"connection_name": "logflume"}
            )
        except (*UNREACHABLE, ValueError) as error:
            said = str(error) or type(error).__name__
            raise ComponentError(f"{wire.describe(url)}: {said}") from error

    async def _consume(self, connection: AbstractConnection) -> None:
        """Consume over one connection until it is lost or we are told to stop."""
        async with connection:
            channel = await connection.channel(publisher_confirms=False)
            await channel.set_qos(prefetch_count=self._settings.prefetch)
            await wire.declare(channel)
            rejects = await connection.channel()
            await rejects.declare_queue(wire.REJECTED_QUEUE, durable=True)
            lost = asyncio.Event()
            connection.close_callbacks.add(lambda *_: lost.set())
            channel.close_callbacks.add(lambda *_: lost.set())
            session = _Session(
                # aio-pika's own consumer makes a second task for each message.
                await channel.get_underlay_channel(),
                self._settings,
                Flusher(self._pool, rejects),
                self._signaller,
                lost,
            )
            await session.start()
            log.info("drain_started", queue=wire.QUEUE, prefetch=self._settings.prefetch)
            await _either(self._stop, lost)
            await session.end()


class _Session:
    """One channel: what is received on it is acknowledged on it or not at all."""

    def __init__(
        self,
        channel: Channel,
        settings: DrainSettings,
        flusher: Flusher,
        signaller: Signaller,
        lost: asyncio.Event,
    ) -> None:
        self._channel = channel
        self._settings = settings
        self._flusher = flusher
        self._signaller = signaller
        self._lost = lost
        self._batcher = Batcher(settings.batch_parts, settings.batch_bytes)
        self._full: deque[Batch] = deque()
        self._overdue = False
        self._acks = AckLedger()
        self._flushes: set[asyncio.Task[None]] = set()
        self._received_at = datetime.now(UTC)
        self._consumer_tag = ""

    async def start(self) -> None:
        self._channel.on_consumer_cancel_callbacks.add(self._cancelled)
        begun = await self._channel.basic_consume(wire.QUEUE, self._receive)
        self._consumer_tag = begun.consumer_tag or ""

    async def _cancelled(self, _: object) -> None:
        """The broker ended our consumer, because the queue was deleted or moved: connect anew."""
        self._lost.set()

    async def end(self) -> None:
        """Flush and acknowledge what was received; give up where the channel is gone."""
        try:
            if not self._lost.is_set():
                await self._flush_all()
        finally:
            for flush in self._flushes:
                flush.cancel()
            await asyncio.gather(*self._flushes, return_exceptions=True)

    async def _flush_all(self) -> None:
        await self._channel.basic_cancel(self._consumer_tag)
        if batch := self._batcher.take():
            self._full.append(batch)
        self._dispatch()
        async with asyncio.timeout(STOP_SECONDS):
            while self._flushes:
                await asyncio.wait(self._flushes, return_when=asyncio.FIRST_COMPLETED)

    async def _receive(self, message: DeliveredMessage) -> None:
        part = self._decode(message)
        was_empty = not len(self._batcher)
        batch = self._batcher.add(message.delivery_tag or 0, message, part)
        if batch:
            self._full.append(batch)
            self._dispatch()
        elif was_empty:
            asyncio.get_running_loop().call_later(self._settings.batch_seconds, self._due)

    def _decode(self, message: DeliveredMessage) -> Part | Reject:
        # No two parts are received at the same time: the content rule asks which came last.
        self._received_at = max(datetime.now(UTC), self._received_at + MICROSECOND)
        try:
            published_at = utc(message.header.properties.timestamp)
            return decode(message.body, published_at, self._received_at)
        except RejectedPart as error:
            return Reject(message, str(error))

    def _due(self) -> None:
        self._overdue = True
        self._dispatch()

    def _dispatch(self) -> None:
        """Start as many flushes as may be in flight: full batches first, then what is due."""
        while len(self._flushes) < self._settings.flushes:
            batch = self._full.popleft() if self._full else None
            if batch is None and self._overdue:
                batch, self._overdue = self._batcher.take(), False
            if batch is None:
                return
            self._acks.opened(batch)
            flush = asyncio.create_task(self._flush(batch))
            self._flushes.add(flush)
            flush.add_done_callback(self._flushed)

    def _flushed(self, flush: asyncio.Task[None]) -> None:
        self._flushes.discard(flush)
        if not flush.cancelled() and (error := flush.exception()):
            # RabbitMQ went while rejects were published or acks sent: all comes again.
            log.warning("flush_given_up", error=str(error) or type(error).__name__)
            self._lost.set()
        if not self._lost.is_set():
            self._dispatch()

    async def _flush(self, batch: Batch) -> None:
        stored = await self._flusher.flush(batch)
        for job_id, added in stored.items():
            self._signaller.add(job_id, added)
        upto = self._acks.done(batch)
        if upto is not None:
            await self._channel.basic_ack(upto, multiple=True)


async def _either(first: asyncio.Event, second: asyncio.Event) -> None:
    waits = [asyncio.create_task(first.wait()), asyncio.create_task(second.wait())]
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()


async def _wait(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return
