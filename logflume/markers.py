"""The markers that runners write into a log, and the timed steps they tell of.

A runner's script writes `travis_fold:start:NAME`, `travis_fold:end:NAME`, `travis_time:start:ID`
and `travis_time:end:ID:start=NS,finish=NS,duration=NS`, some with `,event=NAME` after it. All that
a log says may be a lie: of markers only so many are read, and what makes no sense is left out.
"""

import re
from typing import NamedTuple

import msgspec

MOST_MARKS = 20_000
MARK = re.compile(rb"travis_(?:fold|time):(?:start|end):[^\r\n\x1b]{1,200}")
# A marker that begins nearer to the end of a piece may go on in the next one.
MARK_BYTES = 256

FOLD = re.compile(r"travis_fold:(start|end):([\w.-]{1,100})", re.ASCII)
TIME = re.compile(r"travis_time:(start|end):([\w.-]{1,64})(?::([\w=,.-]*))?", re.ASCII)
# Nanoseconds since the epoch, of the years 2001 to 2096.
MOMENT = re.compile(r"[1-3]\d{18}", re.ASCII)
LONGEST_NS = 30 * 24 * 3600 * 10**9
MOST_STEPS = 1000
MOST_OPEN = 100


class Mark(NamedTuple):
    """A marker: where it begins, its line (from 0) and its text."""

    byte: int
    line: int
    text: str


class MarkReader:
    """Finds the markers of a log in pieces of any size, up to the first `MOST_MARKS`."""

    def __init__(self) -> None:
        self.truncated = False
        self._count = 0
        self._tail = b""  # what a marker may have begun in: where it begins, and in which line
        self._at = self._line = 0

    def feed(self, piece: bytes, *, last: bool = False) -> list[Mark]:
        """Read on; `last` once, after which a marker may end with the log."""
        if self.truncated:
            return []
        text = self._tail + piece
        upto = len(text) if last else max(len(text) - MARK_BYTES, 0)
        marks: list[Mark] = []
        seen, line = 0, self._line
        for found in MARK.finditer(text):
            if found.start() >= upto:
                break
            if self._count == MOST_MARKS:
                self.truncated = True
                break
            self._count += 1
            line += text.count(b"\n", seen, found.start())
            seen = found.start()
            marks.append(Mark(self._at + seen, line, found[0].decode("utf-8", "replace")))
            upto = max(upto, found.end())
        self._line = line + text.count(b"\n", seen, upto)
        self._at += upto
        self._tail = text[upto:]
        return marks


class Step(msgspec.Struct, frozen=True):
    """A step of a job, as its log tells: times in nanoseconds since the epoch, line from 0.

    `event` is the runner's name for it and `fold` the fold it began in; each may be empty.
    """

    id: str
    event: str
    fold: str
    line: int
    start_ns: int
    finish_ns: int


class StepReader:
    """Puts the timed steps of a log together, from pieces of it, in the order they ended.

    A step ends with the marker that has its id; what began inside it and never ended is no step.
    """

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self._marks = MarkReader()
        self._folds: list[str] = []
        self._open: dict[str, tuple[str, int]] = {}  # by id: the fold and the line it began in

    def feed(self, piece: bytes, *, last: bool = False) -> None:
        """Read on; `last` once, with the end of the log."""
        for mark in self._marks.feed(piece, last=last):
            if fold := FOLD.fullmatch(mark.text):
                self._fold(fold[1], fold[2])
            elif time := TIME.fullmatch(mark.text):
                self._time(time[1], time[2], time[3] or "", mark.line)

    def _fold(self, what: str, name: str) -> None:
        if what == "start":
            self._folds = [*self._folds[1 - MOST_OPEN :], name]
        elif name in self._folds:
            while self._folds.pop() != name:
                pass

    def _time(self, what: str, timer: str, fields: str, line: int) -> None:
        begun = self._open.get(timer)
        if what == "start":
            self._open.pop(timer, None)
            self._open[timer] = (self._folds[-1] if self._folds else "", line)
            if len(self._open) > MOST_OPEN:
                del self._open[next(iter(self._open))]
        elif begun:
            while self._open.popitem()[0] != timer:
                pass
            self._end(timer, fields, *begun)

    def _end(self, timer: str, fields: str, fold: str, line: int) -> None:
        told = dict(re.findall(r"(\w+)=([^,]*)", fields))
        start, finish = told.get("start", ""), told.get("finish", "")
        if not (MOMENT.fullmatch(start) and MOMENT.fullmatch(finish)):
            return
        if 0 <= int(finish) - int(start) <= LONGEST_NS and len(self.steps) < MOST_STEPS:
            event = told.get("event", "")
            self.steps.append(Step(timer, event, fold, line, int(start), int(finish)))
