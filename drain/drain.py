"""Runs sessions one after the other: reconnects, suspends and stops the drain."""

import asyncio
import time
from contextlib import suppress

import aio_pika
import asyncpg
import structlog
from aio_pika.abc import AbstractConnection
from aiormq.abc import FieldTable

from db.connect import used_ratio
from drain import metrics
from drain.dead_letter_limit import DeadLetterLimit
from drain.dead_letters import DeadLetterPublisher
from drain.deliveries import Connection
from drain.flow_control import InFlightWindow
from drain.flush import Flusher
from drain.live.forwarder import Forwarder
from drain.management import REQUEST_SECONDS
from drain.queue_checks import QueueChecker
from drain.session import Session, State, close
from drain.shards import Shards
from drain.suspension import Suspension
from logflume import amqp, contract
from logflume.backoff import Backoff
from logflume.errors import ComponentError
from logflume.settings.servers import AmqpSettings
from logflume.settings.stages import DrainSettings
from logflume.tasks import first
from workflows.client.signaller import Signaller

log = structlog.get_logger()

MAX_BACKOFF_SECONDS = 5.0
# How long pending signals may take at the end.
STOP_SECONDS = 20
# How long events that wait for Pusher may take at the end.
LIVE_SECONDS = 2


class Drain:
    """Consumes the queue of parts, and `shards` if given, until stopped."""

    def __init__(  # noqa: PLR0913, PLR0917
        self,
        amqp: AmqpSettings,
        settings: DrainSettings,
        pool: asyncpg.Pool,
        signaller: Signaller,
        live: Forwarder | None = None,
        shards: Shards | None = None,
    ) -> None:
        self._url = amqp.url.get_secret_value()
        self._settings = settings
        self._pool = pool
        self._signaller = signaller
        self._live = live
        self._shards = shards
        self._queues: list[str] = []
        self._checker = QueueChecker(amqp)
        self._dead_letters = DeadLetterPublisher(self._url, pool)
        self._limit = DeadLetterLimit(settings.invalid_share, settings.invalid_window)
        self._stop = asyncio.Event()
        self._session: Session | None = None
        self._suspension: Suspension | None = None
        self._window = self._new_window(settings.prefetch)
        metrics.observe(
            {
                metrics.CONSUMING: lambda: float(self._is_consuming),
                metrics.SUSPENDED: lambda: float(self._suspension is not None),
                metrics.UNACKED_MESSAGES: lambda: self._held.messages,
                metrics.PREFETCH_MESSAGES: lambda: self._window.prefetch,
                metrics.HELD_BYTES: lambda: self._held.bytes,
                metrics.SIGNALS_PENDING: lambda: signaller.pending,
                metrics.POOL_USED: lambda: used_ratio(pool),
            }
        )

    def _new_window(self, prefetch: int) -> InFlightWindow:
        return InFlightWindow(self._settings.held_bytes, self._settings.prefetch, prefetch)

    @property
    def _held(self) -> InFlightWindow:
        """The messages held; a session that lost its connection holds none."""
        return self._window if self._is_consuming else self._new_window(0)

    @property
    def _is_consuming(self) -> bool:
        return self._session is not None and self._session.is_open

    async def queue(self) -> tuple[int, int, int]:
        """Messages ready in the queues, the lowest consumer count, and the dead letters.

        Raises:
            ComponentError: RabbitMQ is unreachable or does not answer.
        """
        connection = self._connection()
        with amqp.reaching("RabbitMQ"):
            # A separate channel, because cancelling a call closes its channel.
            async with connection.channel(publisher_confirms=False) as channel:
                results = [
                    (await channel.declare_queue(name, passive=True)).declaration_result
                    for name in self._queues
                ]
                # Not passive: RabbitMQ logs an error for each look-up of a missing queue.
                dead = await channel.declare_queue(contract.DEAD_LETTER_QUEUE, durable=True)
        messages = sum(result.message_count or 0 for result in results)
        consumers = min(result.consumer_count or 0 for result in results)
        return messages, consumers, dead.declaration_result.message_count or 0

    def _connection(self) -> AbstractConnection:
        if self._session is not None and self._session.is_open:
            return self._session.connection
        if self._suspension is not None and self._suspension.connection is not None:
            return self._suspension.connection
        reason = self._session.reason if self._session else "not connected yet"
        raise ComponentError(f"{amqp.describe(self._url)}: {reason}")

    async def check_publishing(self) -> None:
        """Check that RabbitMQ accepts messages, as it does not under a memory or disk alarm.

        Raises:
            ComponentError: it does not; names the alarm.
        """
        await self._dead_letters.check()

    async def check_not_suspended(self) -> None:
        """Check that the drain is not suspended because of invalid messages.

        Raises:
            ComponentError: it is; names the share, and how to resume.
        """
        if self._suspension is not None:
            raise ComponentError(self._suspension.reason)

    def stop(self) -> None:
        """Stop consuming; `run` returns once what was received is stored and acknowledged."""
        self._stop.set()

    async def run(self) -> None:
        """Consume until stopped, and reconnect when a connection is lost.

        Raises:
            ComponentError: the first connection failed: RabbitMQ, or its management API if shards
                are consumed, is unreachable or refuses.
        """
        try:
            await self._consume()
        finally:
            await self._checker.close()
            await self._dead_letters.close()
        if self._live:
            await self._live.close(LIVE_SECONDS)
        unsent = await self._signaller.close(STOP_SECONDS)
        log.info("drain_stopped", signals_unsent=unsent)

    async def _consume(self) -> None:
        session: Session | None = await self._connect()
        backoff = Backoff(MAX_BACKOFF_SECONDS)
        while session is not None:
            changes = [self._shards.changed()] if self._shards else []
            await first(self._stop.wait(), session.ended.wait(), *changes)
            state = session.state
            if state is State.LOST:
                await self._store_held(session)
            await session.close()
            if session.has_acknowledged:
                backoff.reset()
            await self._recover(state)
            session = await self._reconnect(backoff)

    async def _recover(self, state: State) -> None:
        """Do what must be done after a session that ended in this state, before the next one."""
        if state is State.OVER_LIMIT:
            await self._suspend()
        elif state is not State.LOST and not self._stop.is_set():
            log.info("shards_changed", next="consumes the new set of queues")

    async def _store_held(self, session: Session) -> None:
        """Store what a lost session holds, before the next one; a stop limits the time for it."""
        metrics.CONNECTIONS_LOST.inc()
        log.warning(
            "amqp_lost",
            error=f"{amqp.describe(self._url)}: {session.reason}",
            messages=session.held_messages,
            next="stores the messages it holds, then connects again",
        )
        await first(session.store_held(), self._stop.wait())

    async def _suspend(self) -> None:
        """Wait until an operator resumes the drains, the suspension expires, or the drain stops."""
        self._suspension = suspension = Suspension(
            self._url, self._limit.describe(), self._settings.suspend_seconds
        )
        log.error("drain_suspended", error=suspension.reason)
        began = time.monotonic()
        try:
            await first(self._stop.wait(), suspension.wait())
        finally:
            self._suspension = None
        self._limit.reset()
        log.info("drain_resumed", seconds=round(time.monotonic() - began))

    async def _reconnect(self, backoff: Backoff) -> Session | None:
        """Start a session as soon as RabbitMQ accepts it; None if the drain is stopped first."""
        delay = backoff.next()
        while True:
            await _wait(self._stop, delay)
            if self._stop.is_set():
                return None
            try:
                return await self._connect()
            except ComponentError as error:
                delay = backoff.next()
                log.warning("amqp_unreachable", error=str(error), retry_in=delay)

    async def _connect(self) -> Session:
        """Connect and start to consume.

        Raises:
            ComponentError: RabbitMQ is unreachable or refuses.
        """
        connection: Connection | None = None
        try:
            with amqp.reaching(amqp.describe(self._url)):
                async with asyncio.timeout(amqp.CONNECT_SECONDS + REQUEST_SECONDS):
                    properties: FieldTable = {"connection_name": "logflume"}
                    connection = await aio_pika.connect(
                        self._url, client_properties=properties, connection_class=Connection
                    )
                    session = self._session = await self._start(connection)
        except ComponentError:
            if connection is not None:
                await close(connection)
            raise
        log.info("drain_started", queues=self._queues, prefetch=self._window.prefetch)
        return session

    async def _start(self, connection: Connection) -> Session:
        channel = await connection.channel(publisher_confirms=False)
        await amqp.declare(channel)
        shards = await self._shards.open(channel) if self._shards else []
        # The plain queue too: the web publishes parts to it, and so may runners.
        self._queues = [contract.QUEUE, *shards]
        findings = await self._checker.report(self._queues)
        # The next session starts with the last prefetch: large messages come again.
        self._window = self._new_window(self._window.prefetch)
        session = Session(
            connection,
            await channel.get_underlay_channel(),
            self._queues,
            self._settings,
            self._window,
            self._limit,
            Flusher(self._pool, self._dead_letters, self._signaller, self._live),
        )
        connection.close_callbacks.add(lambda _, error: session.fail(error))
        channel.close_callbacks.add(lambda _, error: session.fail(error))
        if findings.has_quorum:
            session.hold_refused()
        await session.start()
        return session


async def _wait(event: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
