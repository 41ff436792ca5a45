"""Batches and the order of their acknowledgements; no I/O here."""

from collections import deque
from dataclasses import dataclass, field
from datetime import datetime

from db.parts import AttemptParts
from drain.deliveries import Delivery
from logflume.domain import Part, StoredAttempt


@dataclass(slots=True)
class Reject:
    """A message that breaks the wire contract, and why."""

    message: Delivery
    reason: str


@dataclass(slots=True)
class Batch:
    """Messages delivered one after another: their parts, and those that are none.

    `placed` is filled as the parts are committed; `stored` once all are. `queued_at`: when the jobs
    were queued whose first parts are in it. `count`: messages.
    """

    parts: list[Part] = field(default_factory=list)
    messages: list[Delivery] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    bytes: int = 0
    count: int = 0
    last_tag: int = 0
    placed: list[tuple[AttemptParts, StoredAttempt]] = field(default_factory=list)
    stored: bool = False
    queued_at: list[datetime] = field(default_factory=list)


class Batcher:
    """Fills batches up to a number of messages or bytes."""

    def __init__(self, most_messages: int, most_bytes: int) -> None:
        self._most_messages = most_messages
        self._most_bytes = most_bytes
        self._batch = Batch()

    def __len__(self) -> int:
        """Messages in the batch being filled."""
        return self._batch.count

    def add(self, message: Delivery, part: Part | Reject) -> Batch | None:
        """Add a message; returns the batch if that filled it."""
        batch = self._batch
        if isinstance(part, Reject):
            batch.rejects.append(part)
        else:
            batch.parts.append(part)
            batch.messages.append(message)
            if part.queued_at:
                batch.queued_at.append(part.queued_at)
        batch.bytes += len(message.body)
        batch.count += 1
        batch.last_tag = message.tag
        full = len(self) >= self._most_messages or batch.bytes >= self._most_bytes
        return self.take() if full else None

    def take(self) -> Batch | None:
        """Take the batch as far as it is filled, None if it is empty."""
        if not len(self):
            return None
        batch, self._batch = self._batch, Batch()
        return batch


class AckLedger:
    """Tells up to which delivery tag everything is done, whatever order batches are done in."""

    def __init__(self) -> None:
        self._open: deque[Batch] = deque()
        self._done: set[int] = set()

    def opened(self, batch: Batch) -> None:
        """A batch goes to be flushed; batches are opened in the order of their tags."""
        self._open.append(batch)

    def done(self, batch: Batch) -> list[Batch]:
        """A batch is committed; returns those that can be acknowledged now, the last one last."""
        self._done.add(batch.last_tag)
        found = []
        while self._open and self._open[0].last_tag in self._done:
            found.append(self._open.popleft())
            self._done.remove(found[-1].last_tag)
        return found
