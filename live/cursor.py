"""Where a reader of a live log is; no I/O here.

A cursor travels as the id of a server-sent event and comes back as `Last-Event-ID`, from the same
web process or another, so it holds all that resuming needs.
"""

import re
from collections.abc import Iterable, Iterator

from domain import LAST, WHOLE, StoredPart

# Numbers remembered as missing. Those beyond are still found by their ids when they come.
MOST_MISSING = 100
_FORM = re.compile(
    r"(\d{1,9})\.(\d{1,18})\.(-1|\d{1,10})\.(\d{1,18})\.(\d{1,18})\.([0-3])((?:_\d{1,10})*)",
    re.ASCII,
)


class Cursor:
    """What of a log a reader has seen: numbers below `next`, but those `missing`.

    `next` is -1 before the first look. `top` is the highest id of a numbered part seen, `last_id`
    that of a `last` part. `final`: the final part was seen; `whole`: content written whole was. A
    log written whole anew, or made of another attempt, is another log to it.
    """

    __slots__ = ("attempt_id", "final", "generation", "last_id", "missing", "next", "top", "whole")

    def __init__(self, generation: int, attempt_id: int) -> None:
        self.generation = generation
        self.attempt_id = attempt_id
        self.next = WHOLE
        self.top = 0
        self.last_id = 0
        self.final = self.whole = False
        self.missing: list[int] = []

    def __str__(self) -> str:
        """Its form as an event's id."""
        missing = "".join(f"_{number}" for number in self.missing)
        return (
            f"{self.generation}.{self.attempt_id}.{self.next}.{self.top}.{self.last_id}"
            f".{self.final + 2 * self.whole}{missing}"
        )

    @classmethod
    def parse(cls, text: str) -> "Cursor | None":
        """Read an event's id; None where it is none of ours."""
        found = _FORM.fullmatch(text)
        if found is None:
            return None
        generation, attempt_id, following, top, last_id, flags = map(int, found.groups()[:6])
        cursor = cls(generation, attempt_id)
        cursor.next, cursor.top, cursor.last_id = following, top, last_id
        cursor.final, cursor.whole = bool(flags & 1), bool(flags & 2)
        cursor.missing = [int(number) for number in found[7].split("_")[1:]][:MOST_MISSING]
        return cursor

    @property
    def ended(self) -> bool:
        """The final part was seen and every one before it, or content written whole and no part."""
        return (self.final or (self.whole and self.next == 0)) and not self.missing

    @property
    def is_fresh(self) -> bool:
        """Nothing was seen yet."""
        return self.next == WHOLE and self.last_id == 0

    def copy(self) -> "Cursor":
        """Another reader's cursor at the same place."""
        twin = Cursor(self.generation, self.attempt_id)
        for name in self.__slots__:
            setattr(twin, name, getattr(self, name))
        twin.missing = [*self.missing]
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

    def take(self, part: StoredPart) -> bool | None:
        """See a part: True where it comes next, False where it came late, None if it was seen."""
        if part.number == LAST:
            return self._take_last(part)
        if part.number >= self.next:
            self._skip_to(part.number)
        elif part.number in self.missing:
            self.missing.remove(part.number)
        elif part.id <= self.top:
            return None
        in_order = part.number >= self.next
        self.next = max(self.next, part.number + 1)
        self.top = max(self.top, part.id)
        self.final = self.final or part.final
        self.whole = self.whole or part.number == WHOLE
        return in_order

    def _take_last(self, part: StoredPart) -> bool | None:
        if part.id <= self.last_id:
            return None
        self.last_id = part.id
        self.final = self.final or part.final
        return True

    def _skip_to(self, number: int) -> None:
        room = MOST_MISSING - len(self.missing)
        self.missing.extend(range(max(self.next, 0), min(number, max(self.next, 0) + room)))
