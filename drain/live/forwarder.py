"""Forwards committed parts to Pusher without delaying commits."""

import asyncio
from collections.abc import Iterable

from pusher.pusher_client import PusherClient  # type: ignore[import-untyped]

from db.parts import AttemptParts
from drain.live.events import Event, Outbox, weight
from drain.live.metrics import Tally
from logflume.backoff import Backoff
from logflume.domain import LAST, Part, StoredAttempt
from logflume.pusher import trigger
from logflume.settings.servers import PusherSettings
from logflume.tasks import cancel

MAX_BACKOFF_SECONDS = 5.0


class Forwarder:
    """Distributes jobs over a few senders; each job has one sender, which preserves its order."""

    def __init__(self, client: PusherClient, settings: PusherSettings) -> None:
        self._client = client
        self._check_existence = settings.check_existence
        self._tally = Tally()
        max_events = -(-settings.queue_events // settings.senders)
        self._senders = [
            _Sender(client, Outbox(max_events, secure=settings.secure), self._tally)
            for _ in range(settings.senders)
        ]

    def submit(self, placed: Iterable[tuple[AttemptParts, StoredAttempt]]) -> None:
        """Queue committed parts of watched jobs; never waits, drops what exceeds the backlog.

        Stale and superseded parts are not sent: readers would show them instead of the log's own.
        `last` parts belong to the log whichever open attempt they are in.
        """
        for group, attempt in placed:
            if attempt.is_open and (attempt.occupied or not self._check_existence):
                sender = self._senders[group.job_id % len(self._senders)]
                for part in group.parts:
                    if attempt.is_log or part.number == LAST:
                        sender.add(part)

    async def close(self, seconds: float) -> None:
        """Send the backlog for at most `seconds`; the rest is counted as dropped."""
        try:
            async with asyncio.timeout(seconds):
                await asyncio.gather(*(sender.idle.wait() for sender in self._senders))
        except TimeoutError:
            pass
        await asyncio.gather(*(sender.close() for sender in self._senders))
        await self._client.http.close()
        self._tally.report()


class _Sender:
    """Sends the events of its jobs, one batch call after the other."""

    def __init__(self, client: PusherClient, outbox: Outbox, tally: Tally) -> None:
        self.idle = asyncio.Event()
        self.idle.set()
        self._client = client
        self._backlog = outbox
        self._tally = tally
        self._filled = asyncio.Event()
        self._backoff = Backoff(MAX_BACKOFF_SECONDS)
        self._task = asyncio.create_task(self._run())

    def add(self, part: Part) -> None:
        if self._backlog.add(part):
            self.idle.clear()
            self._filled.set()
        else:
            self._tally.lost("dropped", weight(part), "Pusher is too slow: the backlog is full")

    async def close(self) -> None:
        await cancel([self._task])
        left = 0
        while batch := self._backlog.take():
            left += len(batch)
        if left:
            self._tally.lost("dropped", left, "stopped before Pusher accepted them")

    async def _run(self) -> None:
        while True:
            await self._filled.wait()
            self._filled.clear()
            while batch := self._backlog.take():
                await self._send(batch)
            self.idle.set()

    async def _send(self, batch: list[Event]) -> None:
        try:
            await trigger(self._client, batch)
        except asyncio.CancelledError:
            self._tally.lost("dropped", len(batch), "stopped before Pusher accepted them")
            raise
        except Exception as error:  # noqa: BLE001 - later events must still be sent
            reason = " ".join((str(error) or type(error).__name__).split())[:200]
            self._tally.lost("failed", len(batch), reason)
            await asyncio.sleep(self._backoff.next())
        else:
            self._tally.sent(len(batch))
            self._backoff.reset()
