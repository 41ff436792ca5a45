"""Where a reader of a live log is; no I/O here.

A cursor travels as the id of a server-sent event and comes back as `Last-Event-ID`, from the same
web process or another, so it holds all that resuming needs. What comes back may be forged: whoever
looks with it bounds it by what the database says.
"""

import hashlib
import re
from bisect import bisect_right, insort
from collections.abc import Iterable, Iterator

from logflume.domain import LAST, WHOLE, StoredPart

# A cursor must fit a header. A reader with more gaps than this waits for them to be filled.
MOST_GAPS = 100
MOST_LASTS = 100
_FORM = re.compile(
    r"(\d{1,9})\.(\d{1,18})\.(-1|\d{1,10})\.(\d{1,18})\.([0-3])"
    r"((?:_\d{1,10}-\d{1,10})*)((?:~[0-9a-f]{12})*)",
    re.ASCII,
)


def digest(content: bytes) -> str:
    """What a cursor remembers of a `last` part: equal ones are one."""
    return hashlib.sha256(content).hexdigest()[:12]


class Cursor:
    """What of a log a reader has seen: numbers below `next`, but those in `gaps`.

    `next` is -1 before the first look. `gaps` are ranges of numbers, both ends included. `top` is
    the highest id of a numbered part seen; `lasts` are digests of the `last` parts seen. `final`:
    the final part was seen; `whole`: content written whole was. A log written whole anew, or made
    of another attempt, is another log to it.
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
        """Its form as an event's id."""
        gaps = "".join(f"_{first}-{last}" for first, last in self.gaps)
        lasts = "".join(f"~{last}" for last in self.lasts)
        flags = self.final + 2 * self.whole
        return f"{self.generation}.{self.attempt_id}.{self.next}.{self.top}.{flags}{gaps}{lasts}"

    @classmethod
    def parse(cls, text: str) -> "Cursor | None":
        """Read an event's id; None where it is none of ours."""
        found = _FORM.fullmatch(text)
        if found is None:
            return None
        generation, attempt_id, following, top, flags = map(int, found.groups()[:5])
        cursor = cls(generation, attempt_id)
        cursor.next, cursor.top = following, top
        cursor.final, cursor.whole = bool(flags & 1), bool(flags & 2)
        for gap in found[6].split("_")[1:]:
            first, last = map(int, gap.split("-"))
            cursor.gaps.append((first, last))
        cursor.lasts = found[7].split("~")[1:]
        return cursor if cursor._is_sound() else None

    def _is_sound(self) -> bool:
        ends = [end for gap in self.gaps for end in gap]
        return (
            self.next <= LAST
            and len(self.gaps) <= MOST_GAPS
            and len(self.lasts) <= MOST_LASTS
            and all(first <= last for first, last in self.gaps)
            and ends == sorted(ends)
            and (not ends or ends[-1] < self.next)
        )

    @property
    def ended(self) -> bool:
        """The final part was seen and every one before it, or content written whole and no part."""
        return (self.final or (self.whole and self.next == 0)) and not self.gaps

    @property
    def is_fresh(self) -> bool:
        """Nothing was seen yet."""
        return self.next == WHOLE and not self.lasts

    def copy(self) -> "Cursor":
        """Another reader's cursor at the same place."""
        twin = Cursor(self.generation, self.attempt_id)
        for name in self.__slots__:
            setattr(twin, name, getattr(self, name))
        twin.gaps, twin.lasts = [*self.gaps], [*self.lasts]
        return twin

    def follows(self, generation: int, attempt_id: int) -> bool:
        """Whether it is a place in this log."""
        return (self.generation, self.attempt_id) == (generation, attempt_id)

    def contiguous(self, parts: Iterable[StoredPart]) -> Iterator[StoredPart]:
        """Those of the parts, which come in order, that follow without a gap."""
        expected = max(self.next, 0)
        for part in parts:
            if part.number not in (WHOLE, expected, LAST):
                return
            expected = part.number + 1
            yield part

    def reachable(self, parts: Iterable[StoredPart]) -> Iterator[StoredPart]:
        """Those of the parts, which come in order, whose gaps it can remember."""
        expected, room = max(self.next, 0), MOST_GAPS - len(self.gaps)
        for part in parts:
            room -= expected < part.number < LAST
            if room < 0:
                return
            expected = max(expected, part.number + 1)
            yield part

    def take(self, part: StoredPart) -> bool | None:
        """See a part: True where it comes next, False where it came late, None if it was seen."""
        if part.number == LAST:
            return self._take_last(part)
        in_order = part.number >= self.next
        if in_order:
            if part.number > max(self.next, 0) and len(self.gaps) < MOST_GAPS:
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
        if last in self.lasts or len(self.lasts) == MOST_LASTS:
            return None
        self.lasts.append(last)
        self.final = self.final or part.final
        return True

    def _fill(self, number: int) -> bool:
        """Take a number out of the gaps; tells whether it was in one."""
        place = bisect_right(self.gaps, (number, LAST)) - 1
        if place < 0 or number > self.gaps[place][1]:
            return False
        first, last = self.gaps.pop(place)
        for gap in ((first, number - 1), (number + 1, last)):
            if gap[0] <= gap[1]:
                insort(self.gaps, gap)
        return True
