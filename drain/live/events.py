"""Parts as Pusher events: cut to its limits, in the order they came; no I/O here."""

import json
from collections import deque
from collections.abc import Iterator
from json.encoder import encode_basestring_ascii

from logflume.domain import Part

EVENT = "job:log"
# What one batch call to Pusher may hold.
BATCH_EVENTS = 10
# What the text may take, as JSON, of the 10,240 bytes of an event's data. The rest is for the
# object around it, 90 bytes at most, and for the client's own check: it measures the Python object
# and not the text in it.
TEXT_BYTES = 10_000
# Readers order by a number's last six digits and keep the first text they see for a number.
NUMBERS = 1_000_000

Event = dict[str, str]


def channel(job_id: int, *, secure: bool) -> str:
    """Name the channel of a job; a private one where subscribers must be let in."""
    return f"private-job-{job_id}" if secure else f"job-{job_id}"


def events(part: Part, *, secure: bool) -> Iterator[Event]:
    """Make the events of a part: one, or as many as its text needs.

    The pieces of a text have numbers of their own that end in the same six digits; only the last
    one is final.
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
        # ASCII alone, so that a character is a byte, wherever it is counted.
        yield {"channel": name, "name": EVENT, "data": json.dumps(body, separators=(",", ":"))}
        number += NUMBERS


def pieces(text: str) -> Iterator[str]:
    """Cut a text so that each piece fits an event; an empty text is one empty piece."""
    start = 0
    while True:
        piece = text[start : start + TEXT_BYTES]
        # A character takes 1 to 12 bytes as JSON: shorten by how much it is too long, until not.
        while (size := len(encode_basestring_ascii(piece))) > TEXT_BYTES:
            piece = piece[: len(piece) * TEXT_BYTES // size]
        yield piece
        start += len(piece)
        if start >= len(text):
            return


def weight(part: Part) -> int:
    """About how many events a part will be; exact for plain text."""
    return 1 + len(part.content) // TEXT_BYTES


class Outbox:
    """Parts that wait to be sent, in order; they become events only as these are taken.

    Holds parts of `most` events by weight, and one part more at most, of whatever size: so a part
    that is larger than all of it still has its turn.
    """

    def __init__(self, most: int, *, secure: bool) -> None:
        self._most = most
        self._secure = secure
        self._parts: deque[Part] = deque()
        self._begun: Iterator[Event] = iter(())
        self.weight = 0

    def add(self, part: Part) -> bool:
        """Take a part in; False where there is no room for it."""
        if self.weight >= self._most:
            return False
        self._parts.append(part)
        self.weight += weight(part)
        return True

    def take(self) -> list[Event]:
        """Take the events of the next batch call; none where nothing waits."""
        batch: list[Event] = []
        while len(batch) < BATCH_EVENTS:
            event = next(self._begun, None)
            if event is not None:
                batch.append(event)
            elif self._parts:
                part = self._parts.popleft()
                self.weight -= weight(part)
                self._begun = events(part, secure=self._secure)
            else:
                break
        return batch
