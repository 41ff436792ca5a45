"""The position of a stream in a log; no I/O.

A cursor is sent as the id of a server-sent event and comes back as `Last-Event-ID`, maybe to
another web process, so it contains all that resuming needs. It may be forged: callers check it
against the database before they use it.
"""

import hashlib
import re
from bisect import bisect_right, insort
from collections.abc import Iterable, Iterator

from logflume.domain import LAST, WHOLE, StoredPart

# A cursor must fit into a header. A stream with more gaps waits for them to be filled.
MAX_GAPS = 100
MAX_LASTS = 100
_FORM = re.compile(
    r"(\d{1,9})\.(\d{1,18})\.(-1|\d{1,10})\.(\d{1,18})\.([0-3])"
    r"((?:_\d{1,10}-\d{1,10})*)((?:~[0-9a-f]{12})*)",
    re.ASCII,
)


def digest(content: bytes) -> str:
    """The part of a SHA-256 that identifies a `last` part; equal ones count as one."""
    return hashlib.sha256(content).hexdigest()[:12]


class Cursor:
    """The parts that were seen: all numbers below `next` except those in `gaps`.

    `next` is -1 before the first part. `gaps` are inclusive ranges of numbers. `top` is the
    high-water mark: the highest id of a numbered part. `lasts` are digests of the `last` parts.
    `final` and `whole`: the final part, or content written whole, was seen. A cursor is valid for
    one generation and attempt of a log.
    """

    __slots__ = (
        "attempt_id",
        "final",
        "gaps",
        "generation",
        "lasts",
        "next",
        "top",
        "whole",
    )

    def __init__(self, generation: int, attempt_id: int) -> None:
        self.generation = generation
        self.attempt_id = attempt_id
        self.next = WHOLE
        self.top = 0
        self.final = self.whole = False
        self.gaps: list[tuple[int, int]] = []
        self.lasts: list[str] = []

    def __str__(self) -> str:
        """Format it as the id of an event."""
        gaps = "".join(f"_{first}-{last}" for first, last in self.gaps)
        lasts = "".join(f"~{last}" for last in self.lasts)
        flags = self.final + 2 * self.whole
        return f"{self.generation}.{self.attempt_id}.{self.next}.{self.top}.{flags}{gaps}{lasts}"

    @classmethod
    def parse(cls, text: str) -> "Cursor | None":
        """Parse the id of an event; None if it is not a valid cursor."""
        match = _FORM.fullmatch(text)
        if match is None:
            return None
        generation, attempt_id, next_number, top, flags = map(int, match.groups()[:5])
        cursor = cls(generation, attempt_id)
        cursor.next, cursor.top = next_number, top
        cursor.final, cursor.whole = bool(flags & 1), bool(flags & 2)
        for gap in match[6].split("_")[1:]:
            first, last = map(int, gap.split("-"))
            cursor.gaps.append((first, last))
        cursor.lasts = match[7].split("~")[1:]
        return cursor if cursor._is_valid() else None

    def _is_valid(self) -> bool:
        ends = [end for gap in self.gaps for end in gap]
        return (
            self.next <= LAST
            and len(self.gaps) <= MAX_GAPS
            and len(self.lasts) <= MAX_LASTS
            and all(first <= last for first, last in self.gaps)
            and ends == sorted(ends)
            and (not ends or ends[-1] < self.next)
        )

    @property
    def ended(self) -> bool:
        """All parts to the final one were seen, or content written whole and no part after it."""
        return (self.final or (self.whole and self.next == 0)) and not self.gaps

    @property
    def is_fresh(self) -> bool:
        """No part was seen yet."""
        return self.next == WHOLE and not self.lasts

    def copy(self) -> "Cursor":
        """Return an independent copy."""
        twin = Cursor(self.generation, self.attempt_id)
        for name in self.__slots__:
            setattr(twin, name, getattr(self, name))
        twin.gaps, twin.lasts = [*self.gaps], [*self.lasts]
        return twin

    def is_in(self, generation: int, attempt_id: int) -> bool:
        """Whether it is a position in this generation and attempt of the log."""
        return (self.generation, self.attempt_id) == (generation, attempt_id)

    def contiguous(self, parts: Iterable[StoredPart]) -> Iterator[StoredPart]:
        """Those of the ordered parts that follow without a gap."""
        expected = max(self.next, 0)
        for part in parts:
            if part.number not in (WHOLE, expected, LAST):
                return
            expected = part.number + 1
            yield part

    def reachable(self, parts: Iterable[StoredPart]) -> Iterator[StoredPart]:
        """Those of the ordered parts before which there are at most `MAX_GAPS` gaps."""
        expected, gaps_left = max(self.next, 0), MAX_GAPS - len(self.gaps)
        for part in parts:
            gaps_left -= expected < part.number < LAST
            if gaps_left < 0:
                return
            expected = max(expected, part.number + 1)
            yield part

    def take(self, part: StoredPart) -> bool | None:
        """Record a part as seen: True if it is in order, False if late, None if seen before."""
        if part.number == LAST:
            return self._take_last(part)
        in_order = part.number >= self.next
        if in_order:
            if part.number > max(self.next, 0) and len(self.gaps) < MAX_GAPS:
                self.gaps.append((max(self.next, 0), part.number - 1))
            self.next = part.number + 1
        elif not self._fill(part.number) and part.id <= self.top:
            return None
        self.top = max(self.top, part.id)
        self.final = self.final or part.final
        self.whole = self.whole or part.number == WHOLE
        return in_order

    def _take_last(self, part: StoredPart) -> bool | None:
        last = digest(part.content)
        if last in self.lasts or len(self.lasts) == MAX_LASTS:
            return None
        self.lasts.append(last)
        self.final = self.final or part.final
        return True

    def _fill(self, number: int) -> bool:
        """Remove a number from the gaps; returns whether it was in one."""
        index = bisect_right(self.gaps, (number, LAST)) - 1
        if index < 0 or number > self.gaps[index][1]:
            return False
        first, last = self.gaps.pop(index)
        for gap in ((first, number - 1), (number + 1, last)):
            if gap[0] <= gap[1]:
                insort(self.gaps, gap)
        return True
