"""The content rule of the wire contract in plain Python, and strategies for parts."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from hypothesis import strategies as st

from logflume.domain import LAST, Part
from tests.support.parts import BEGIN, part


@dataclass
class Model:
    """One log by the content rule of the wire contract."""

    whole: bytes = b""
    parts: list[Part] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)
    closed: set[str] = field(default_factory=set)
    fixed: tuple[str | None, frozenset[int]] = (None, frozenset())
    lost: bool = False
    stale: int = 0

    def write(self, content: bytes) -> None:
        self.whole, self.parts, self.fixed, self.lost = content, [], (None, frozenset()), False
        self.closed |= self.seen - {""}

    def receive(self, part: Part) -> None:
        self.seen.add(part.attempt)
        if part.attempt in self.closed:
            self.stale += 1
        elif part.attempt != self.fixed[0] or part.number not in self.fixed[1]:
            self.parts.append(part)

    def lose_parts(self) -> None:
        """Drop the parts with their partition; their numbers and content are final."""
        self.fixed, self.lost = (self.attempt, frozenset(self.numbered)), True

    @property
    def attempt(self) -> str | None:
        begins: dict[str, datetime] = {}
        for one in self.parts:
            if one.number != LAST:
                at = min(one.published_at or one.received_at, one.received_at)
                begins[one.attempt] = min(begins.get(one.attempt, at), at)
        return max(begins, key=lambda uuid: (begins[uuid], uuid), default=None)

    @property
    def numbered(self) -> dict[int, Part]:
        attempt = self.attempt
        mine = [p for p in self.parts if p.attempt == attempt and p.number != LAST]
        return {one.number: one for one in mine}  # the last one received wins

    @property
    def content(self) -> bytes:
        numbered = b"".join(one.content for _, one in sorted(self.numbered.items()))
        lasts = dict.fromkeys(one.content for one in self.parts if one.number == LAST)
        return self.whole + numbered + b"".join(lasts)

    @property
    def missing(self) -> int:
        return max(self.numbered, default=-1) + 1 - len(self.numbered)

    @property
    def ended(self) -> bool:
        lasts = [one for one in self.parts if one.number == LAST]
        final = any(one.final for one in [*self.numbered.values(), *lasts])
        return final or (bool(self.whole) and not self.numbered)


contents = st.sampled_from([b"", b"a", b"b", b"\0", b"\xff\xfe", "é".encode()[:1], b"long" * 9])
parts = st.builds(
    lambda attempt, number, content, final, second: part(
        0,
        number,
        content,
        attempt=attempt,
        final=final,
        # Whole seconds, as in AMQP: attempts often begin in the same second. A clock may be ahead.
        published_at=None if second is None else BEGIN + timedelta(seconds=second),
    ),
    st.sampled_from(["", "a", "b"]),
    st.sampled_from([0, 1, 2, 4, LAST]),
    contents,
    st.booleans(),
    st.sampled_from([-2, -1, 0, 3600, None]),
)
