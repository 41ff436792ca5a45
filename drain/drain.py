"""The drain's life: one session after the other, each begun when the one before was lost."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import aio_pika
import asyncpg
import structlog
from aiormq.abc import FieldTable

from db.connect import used_ratio
from drain import metrics
from drain.dead_letters import Rejects
from drain.deliveries import Connection
from drain.flow_control import Room
from drain.flush import Flusher
from drain.live.forwarder import Forwarder
from drain.session import Session, close
from drain.shards import Shards
from drain.signals import Signaller
from logflume import amqp, contract
from logflume.errors import ComponentError
from logflume.settings.groups import AmqpSettings, DrainSettings

log = structlog.get_logger()

CONNECT_SECONDS = 10
MAX_BACKOFF_SECONDS = 5.0
# How long the last signals may take once the drain is told to stop.
STOP_SECONDS = 20
# How long events that wait for Pusher may go out then.
LIVE_SECONDS = 2


class Drain:
    """Consumes the queue of parts, and `shards` if given, until it is told to stop."""

    def __init__(  # noqa: PLR0913, PLR0917
        self,
        amqp: AmqpSettings,
        settings: DrainSettings,
        pool: asyncpg.Pool,
        signaller: Signaller,
        live: Forwarder | None = None,
        shards: Shards | None = None,
    ) -> None:
        self._amqp = amqp
        self._settings = settings
        self._pool = pool
        self._signaller = signaller
        self._live = live
        self._shards = shards
        self._rejects = Rejects(amqp.url.get_secret_value())
        self._stop = asyncio.Event()
        self._current: Session | None = None
        self._room = self._new_room(settings.prefetch)
        metrics.show(
            {
                metrics.CONSUMING: lambda: float(self._is_consuming),
                metrics.UNACKED_MESSAGES: lambda: self._held.messages,
                metrics.PREFETCH_MESSAGES: lambda: self._room.prefetch,
                metrics.HELD_BYTES: lambda: self._held.bytes,
                metrics.SIGNALS_PENDING: lambda: signaller.pending,
                metrics.POOL_USED: lambda: used_ratio(pool),
            }
        )

    def _new_room(self, prefetch: int) -> Room:
        return Room(self._settings.held_bytes, self._settings.prefetch, prefetch)

    @property
    def _held(self) -> Room:
        """What is held; with its connection a session loses all of it."""
        return self._room if self._is_consuming else self._new_room(0)

    @property
    def _is_consuming(self) -> bool:
        return self._current is not None and not self._current.lost.is_set()

    async def queue(self) -> tuple[int, int, int]:
        """Ask RabbitMQ how many parts wait in the queues, for consumers, and how many rejects.

        Raises:
            ComponentError: RabbitMQ is away just now, or does not answer.
        """
        session = self._current
        if session is None or session.lost.is_set():
            why = session.why if session else "not connected yet"
            raise ComponentError(f"{amqp.describe(self._amqp.url.get_secret_value())}: {why}")
        return await session.queue()

    def stop(self) -> None:
        """Stop consuming; `run` returns once what was received is stored and acknowledged."""
        self._stop.set()

    async def run(self) -> None:
        """Consume until stopped; a connection that is lost is made again.

        Raises:
            ComponentError: RabbitMQ, or its management API where shards are consumed, is out of
                reach, or refuses us, from the start.
        """
        session = self._current = await self._session()
        backoff = 0.1
        while True:
            changes = [self._shards.changed()] if self._shards else []
            await _first(self._stop.wait(), session.lost.wait(), *changes)
            was_lost = session.lost.is_set()
            await session.end()
            if self._stop.is_set():
                break
            if was_lost:
                metrics.CONNECTIONS_LOST.inc()
                log.warning("amqp_lost", error=session.why, retry_in=backoff)
            else:
                log.info("shards_changed")
            # A session that stored something was good for something: the next may come at once.
            backoff = 0.1 if session.acked else min(2 * backoff, MAX_BACKOFF_SECONDS)
            again = await self._session_again(backoff)
            if again is None:
                break
            session = self._current = again
        await self._rejects.close()
        if self._live:
            await self._live.close(LIVE_SECONDS)
        untold = await self._signaller.close(STOP_SECONDS)
        log.info("drain_stopped", logs_untold=untold)

    async def _session_again(self, backoff: float) -> Session | None:
        """Begin a session as soon as RabbitMQ lets us; None where we are to stop before."""
        while not self._stop.is_set():
            await _wait(self._stop, backoff)
            try:
                return await self._session()
            except ComponentError as error:
                backoff = min(2 * backoff, MAX_BACKOFF_SECONDS)
                log.warning("amqp_unreachable", error=str(error), retry_in=backoff)
        return None

    async def _session(self) -> Session:
        """Connect and start to consume.

        Raises:
            ComponentError: RabbitMQ is out of reach or refuses us.
        """
        url = self._amqp.url.get_secret_value()
        connection: Connection | None = None
        try:
            with amqp.reaching(amqp.describe(url)):
                async with asyncio.timeout(CONNECT_SECONDS):
                    properties: FieldTable = {"connection_name": "logflume"}
                    connection = await aio_pika.connect(
                        url, client_properties=properties, connection_class=Connection
                    )
                    channel = await connection.channel(publisher_confirms=False)
                    await amqp.declare(channel)
                    shards = await self._shards.open(channel) if self._shards else []
                    # What is large now is so in the next session too.
                    self._room = self._new_room(self._room.prefetch)
                    session = Session(
                        connection,
                        await channel.get_underlay_channel(),
                        self._settings,
                        self._room,
                        Flusher(self._pool, self._rejects, self._live),
                        self._signaller,
                    )
                    connection.close_callbacks.add(session.lose)
                    channel.close_callbacks.add(session.lose)
                    # Parts over HTTP come by the plain queue, so does what runners publish there.
                    await session.start([contract.QUEUE, *shards])
        except ComponentError:
            if connection is not None:
                await close(connection)
            raise
        log.info(
            "drain_started",
            queue=contract.QUEUE,
            shards=len(shards),
            prefetch=self._settings.prefetch,
        )
        return session


async def _first(*coroutines: Coroutine[Any, Any, Any]) -> None:
    """Wait for the first of them to return, and give up the others."""
    waits = [asyncio.create_task(one) for one in coroutines]
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()
    await asyncio.gather(*waits, return_exceptions=True)


async def _wait(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return
