"""Batches of messages, and the order in which they are acknowledged; no I/O."""

from collections import deque
from collections.abc import Iterable
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
    when jobs were queued whose first parts are in the batch. `count` is the number of messages,
    `places` the job, attempt and number of each part.
    """

    parts: list[Part] = field(default_factory=list)
    messages: list[Delivery] = field(default_factory=list)
    places: set[tuple[int, str, int]] = field(default_factory=set)
    invalid: list[DeadLetter] = field(default_factory=list)
    bytes: int = 0
    count: int = 0
    last_tag: int = 0
    placed: list[tuple[AttemptParts, StoredAttempt]] = field(default_factory=list)
    stored: bool = False
    queued_at: list[datetime] = field(default_factory=list)

    @property
    def tags(self) -> list[int]:
        """The delivery tags of its messages, ascending."""
        invalid = (letter.message for letter in self.invalid)
        # A part that Postgres refused is in both lists.
        return sorted({message.tag for message in (*self.messages, *invalid)})


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
            batch.places.add((part.job_id, part.attempt, part.number))
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

    def next(self, flushing: Iterable[Batch] = ()) -> Batch | None:
        """Take the next batch to flush: full ones first, then an expired one.

        None also if it repeats the number of a part in a batch that is `flushing`: of two such
        parts the one stored last counts, and a flush that is retried is overtaken by later ones.
        """
        batch = self._full[0] if self._full else self._batch
        if any(not batch.places.isdisjoint(earlier.places) for earlier in flushing):
            return None
        if self._full:
            return self._full.popleft()
        if not self._is_due:
            return None
        self._is_due = False
        return None if self.is_empty else self._take()

    def _take(self) -> Batch:
        batch, self._batch = self._batch, Batch()
        return batch


@dataclass(slots=True)
class Acks:
    """Acknowledgements to send: tags, each cumulative or not, and what they free."""

    tags: list[tuple[int, bool]] = field(default_factory=list)
    messages: int = 0
    bytes: int = 0


class AckLedger:
    """Decides what to acknowledge when batches are committed in any order.

    A held message is an invalid one that RabbitMQ does not accept as a dead letter yet. While one
    is held, the messages after it are acknowledged one by one, because a cumulative ack would cover
    it. RabbitMQ closes a channel that acknowledges a tag twice, so a held message whose batch is
    not acknowledged yet is acknowledged with it, not before.
    """

    def __init__(self) -> None:
        self._open: deque[Batch] = deque()
        self._done: set[int] = set()
        self._held: dict[int, int] = {}
        self._watermark = 0

    def open(self, batch: Batch) -> None:
        """Register a batch before its flush; batches are opened in the order of their tags."""
        self._open.append(batch)

    def complete(self, batch: Batch, held: Iterable[Delivery] = ()) -> Acks:
        """Mark a batch as committed, apart from the messages that are held."""
        self._done.add(batch.last_tag)
        self._held.update((message.tag, message.size) for message in held)
        batches = []
        while self._open and self._open[0].last_tag in self._done:
            batches.append(self._open.popleft())
            self._done.remove(batches[-1].last_tag)
        if not batches:
            return Acks()
        before, self._watermark = self._watermark, batches[-1].last_tag
        sizes = [size for tag, size in self._held.items() if before < tag <= self._watermark]
        return Acks(
            self._tags(batches),
            sum(one.count for one in batches) - len(sizes),
            sum(one.bytes for one in batches) - sum(sizes),
        )

    def release(self, message: Delivery) -> Acks:
        """Mark a held message as dead-lettered."""
        size = self._held.pop(message.tag)
        if message.tag > self._watermark:
            return Acks()
        return Acks([(message.tag, False)], 1, size)

    def _tags(self, batches: list[Batch]) -> list[tuple[int, bool]]:
        lowest = min(self._held, default=self._watermark + 1)
        if lowest > self._watermark:
            return [(self._watermark, True)]
        tags = [tag for one in batches for tag in one.tags if tag not in self._held]
        below = [tag for tag in tags if tag < lowest]
        above = [(tag, False) for tag in tags if tag > lowest]
        return [(below[-1], True), *above] if below else above
