"""Batches of messages, and the order in which they are acknowledged; no I/O."""

from collections import deque
from dataclasses import dataclass, field
from datetime import datetime

from db.parts import AttemptParts
from drain.deliveries import Delivery
from logflume.domain import Part, StoredAttempt


@dataclass(slots=True)
class DeadLetter:
    """An invalid message and the reason."""

    message: Delivery
    reason: str


@dataclass(slots=True)
class Batch:
    """Consecutive messages: parts, and invalid ones.

    `placed` is filled as the parts are committed; `stored` is set once all are. `queued_at` lists
    when jobs were queued whose first parts are in the batch. `count` is the number of messages.
    """

    parts: list[Part] = field(default_factory=list)
    messages: list[Delivery] = field(default_factory=list)
    invalid: list[DeadLetter] = field(default_factory=list)
    bytes: int = 0
    count: int = 0
    last_tag: int = 0
    placed: list[tuple[AttemptParts, StoredAttempt]] = field(default_factory=list)
    stored: bool = False
    queued_at: list[datetime] = field(default_factory=list)


class Batcher:
    """Collects messages into batches, limited by messages, bytes and (`expire`) time."""

    def __init__(self, max_messages: int, max_bytes: int) -> None:
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._full: deque[Batch] = deque()
        self._batch = Batch()
        self._is_due = False

    @property
    def is_empty(self) -> bool:
        """Whether the batch that is being filled has no messages yet."""
        return not self._batch.count

    def add(self, message: Delivery, part: Part | DeadLetter) -> bool:
        """Add a message; True if that completed a batch."""
        batch = self._batch
        if isinstance(part, DeadLetter):
            batch.invalid.append(part)
        else:
            batch.parts.append(part)
            batch.messages.append(message)
            if part.queued_at:
                batch.queued_at.append(part.queued_at)
        batch.bytes += len(message.body)
        batch.count += 1
        batch.last_tag = message.tag
        is_full = batch.count >= self._max_messages or batch.bytes >= self._max_bytes
        if is_full:
            self._full.append(self._take())
        return is_full

    def expire(self) -> None:
        """Make the batch that is being filled available to `next`, however small it is."""
        self._is_due = True

    def next(self) -> Batch | None:
        """Take the next batch to flush: full ones first, then an expired one."""
        if self._full:
            return self._full.popleft()
        if not self._is_due:
            return None
        self._is_due = False
        return None if self.is_empty else self._take()

    def _take(self) -> Batch:
        batch, self._batch = self._batch, Batch()
        return batch


class AckLedger:
    """Finds the ack watermark when batches are committed in any order."""

    def __init__(self) -> None:
        self._open: deque[Batch] = deque()
        self._done: set[int] = set()

    def open(self, batch: Batch) -> None:
        """Register a batch before its flush; batches are opened in the order of their tags."""
        self._open.append(batch)

    def complete(self, batch: Batch) -> list[Batch]:
        """Mark a batch as committed; returns the batches that can now be acknowledged, in order."""
        self._done.add(batch.last_tag)
        acknowledged = []
        while self._open and self._open[0].last_tag in self._done:
            acknowledged.append(self._open.popleft())
            self._done.remove(acknowledged[-1].last_tag)
        return acknowledged
