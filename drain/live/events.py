"""Parts as Pusher events: split to fit its limits, in order of receipt; no I/O."""

import json
from collections import deque
from collections.abc import Iterator
from json.encoder import encode_basestring_ascii

from logflume.domain import Part

EVENT = "job:log"
# Most events in one batch call to Pusher.
BATCH_EVENTS = 10
# Most bytes of the text, as JSON, within the 10,240 bytes of an event's data. The rest is for the
# enclosing object, at most 90 bytes, and for the client's own check, which measures the Python
# object instead of its text.
TEXT_BYTES = 10_000
# Readers order by the last six digits of a number and use the first text they see for a number.
NUMBERS = 1_000_000

Event = dict[str, str]


def channel(job_id: int, *, secure: bool) -> str:
    """The name of a job's channel; a private one admits only authorized subscribers."""
    return f"private-job-{job_id}" if secure else f"job-{job_id}"


def events(part: Part, *, secure: bool) -> Iterator[Event]:
    """Make the events of a part: one, or more if its text is long.

    The events of one text have different numbers with the same last six digits; only the last
    event is final.
    """
    text = part.content.decode("utf-8", "replace")
    name, number, left = channel(part.job_id, secure=secure), part.number, len(text)
    for piece in pieces(text):
        left -= len(piece)
        body = {
            "id": part.job_id,
            "_log": piece,
            "number": number,
            "final": part.final and not left,
        }
        # ASCII only, so that characters and bytes are the same number.
        yield {"channel": name, "name": EVENT, "data": json.dumps(body, separators=(",", ":"))}
        number += NUMBERS


def pieces(text: str) -> Iterator[str]:
    """Split a text so that each piece fits an event; an empty text is one empty piece."""
    start = 0
    while True:
        piece = text[start : start + TEXT_BYTES]
        # A character takes 1 to 12 bytes as JSON: shorten in proportion until it fits.
        while (size := len(encode_basestring_ascii(piece))) > TEXT_BYTES:
            piece = piece[: len(piece) * TEXT_BYTES // size]
        yield piece
        start += len(piece)
        if start >= len(text):
            return


def weight(part: Part) -> int:
    """The approximate number of events of a part; exact for plain text."""
    return 1 + len(part.content) // TEXT_BYTES


class Outbox:
    """The backlog of parts to send, in order; they become events when these are taken.

    Accepts parts while their weight is below `max_events`, so that even a part larger than the
    limit is accepted when the outbox is empty.
    """

    def __init__(self, max_events: int, *, secure: bool) -> None:
        self._max_events = max_events
        self._secure = secure
        self._parts: deque[Part] = deque()
        self._current: Iterator[Event] = iter(())
        self.weight = 0

    def add(self, part: Part) -> bool:
        """Add a part; False if the outbox is full."""
        if self.weight >= self._max_events:
            return False
        self._parts.append(part)
        self.weight += weight(part)
        return True

    def take(self) -> list[Event]:
        """Take the events of the next batch call; none if the outbox is empty."""
        batch: list[Event] = []
        while len(batch) < BATCH_EVENTS:
            event = next(self._current, None)
            if event is not None:
                batch.append(event)
            elif self._parts:
                part = self._parts.popleft()
                self.weight -= weight(part)
                self._current = events(part, secure=self._secure)
            else:
                break
        return batch
