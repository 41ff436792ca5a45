"""Consumes queues on one channel, within the bounds of the in-flight window."""

import asyncio
from collections.abc import Callable

import structlog
from aiormq.abc import AbstractChannel as Channel
from aiormq.abc import DeliveredMessage

from drain import metrics
from drain.batch import Acks
from drain.deliveries import Delivery, Frames
from drain.flow_control import InFlightWindow
from logflume.tasks import cancel

log = structlog.get_logger()


class Consumer:
    """Subscribes to queues, sets the prefetch, and requeues what does not fit the window.

    Messages go to `on_message`. The first that does not fit is refused, as are all after it: one
    acknowledgement covers all earlier tags. Consuming then pauses until half of the window is
    free, and continues with a smaller prefetch. `on_error` receives what ends the consumer.

    `holds_refused`: requeue refused messages only once they fit, as from quorum queues, which drop
    what is delivered too often. By default they are requeued at once: a queue whose messages are
    all held appears empty, and may be deleted.
    """

    def __init__(  # noqa: PLR0913, PLR0917
        self,
        channel: Channel,
        frames: Frames,
        queues: list[str],
        window: InFlightWindow,
        on_message: Callable[[Delivery], None],
        on_error: Callable[[BaseException], None],
    ) -> None:
        self._channel = channel
        self._frames = frames
        self._queues = queues
        self._window = window
        self._on_message = on_message
        self._on_error = on_error
        self._consumer_tags: list[str] = []
        self.holds_refused = False
        self._refused: list[int] = []
        self._refused_size = 0
        self._window_freed = asyncio.Event()
        self._acknowledging = asyncio.Lock()
        self._restarting: asyncio.Task[None] | None = None
        self._is_stopping = False

    async def start(self) -> None:
        """Consume the queues, with one prefetch for all of them."""
        self._frames.accepts = self._accepts
        self._frames.receive = self._receive
        self._channel.on_consumer_cancel_callbacks.add(self._on_cancelled)
        await self._subscribe()

    async def stop(self) -> None:
        """Cancel the consumers; messages that arrive until then are still passed on."""
        self._is_stopping = True
        self._window_freed.set()
        if self._restarting:
            await asyncio.wait([self._restarting])
        await self._cancel()

    async def close(self) -> None:
        """End what is still running; the channel can no longer be used."""
        self._is_stopping = True
        if self._restarting:
            await cancel([self._restarting])

    async def acknowledge(self, acks: Acks) -> None:
        """Acknowledge messages, and free the window of them."""
        # In this order: the library's queue does not preserve the order of callers.
        async with self._acknowledging:
            for tag, is_cumulative in acks.tags:
                await self._channel.basic_ack(tag, multiple=is_cumulative, wait=len(acks.tags) == 1)
        self._window.remove(acks.messages, acks.bytes)
        self._window_freed.set()
        if self._window.can_grow:
            self._restart(self._window.grow)

    async def _subscribe(self) -> None:
        # RabbitMQ applies the prefetch to each consumer: together they hold at most the window's.
        share = max(1, self._window.prefetch // len(self._queues))
        await self._channel.basic_qos(prefetch_count=share)
        for queue in self._queues:
            subscribed = await self._channel.basic_consume(queue, _unused_callback)
            self._consumer_tags.append(subscribed.consumer_tag or "")

    async def _cancel(self) -> None:
        while self._consumer_tags:
            await self._channel.basic_cancel(self._consumer_tags[-1])
            self._consumer_tags.pop()

    async def _on_cancelled(self, _: object) -> None:
        """The broker cancelled a consumer because its queue was deleted or moved."""
        self._on_error(ConnectionError("the broker cancelled a consumer"))

    def _accepts(self, size: int) -> bool:
        return not self._refused and self._window.fits(size)

    def _receive(self, message: Delivery) -> None:
        if not message.is_refused:
            self._window.add(message.size)
            self._on_message(message)
            return
        if not self._refused:
            self._refused_size = message.size
        self._refused.append(message.tag)
        self._restart(self._window.shrink)

    def _restart(self, resize: Callable[[], None]) -> None:
        """Consume with another prefetch, unless that is already under way."""
        if self._restarting is None and not self._is_stopping:
            resize()
            self._restarting = asyncio.create_task(self._subscribe_again())
            self._restarting.add_done_callback(self._restarted)

    async def _subscribe_again(self) -> None:
        # A prefetch applies to consumers that start after it. None may run while messages are
        # requeued: RabbitMQ would deliver them again at once.
        await self._cancel()
        if self._refused:
            log.info("backpressure", refused=len(self._refused), prefetch=self._window.prefetch)
            if not self.holds_refused:
                await self._requeue_refused()
        # The first refused message is delivered first again, so it must fit.
        while not (
            self._is_stopping
            or (self._window.is_half_free and self._window.fits(self._refused_size))
        ):
            self._window_freed.clear()
            await self._window_freed.wait()
        self._refused_size = 0
        if not self._is_stopping:
            await self._requeue_refused()
            await self._subscribe()

    async def _requeue_refused(self) -> None:
        for tag in self._refused:
            await self._channel.basic_nack(tag, requeue=True, wait=False)
        metrics.REQUEUED.inc(len(self._refused))
        self._refused.clear()

    def _restarted(self, task: asyncio.Task[None]) -> None:
        self._restarting = None
        if not task.cancelled() and (error := task.exception()):
            self._on_error(error)
        elif self._refused:  # while it subscribed again
            self._restart(self._window.shrink)


async def _unused_callback(_: DeliveredMessage) -> None:
    """Never called: deliveries do not reach aiormq."""
