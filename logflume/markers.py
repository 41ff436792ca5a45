"""Markers that runners write into a log, and the timed steps they describe.

A runner's script writes `travis_fold:start:NAME`, `travis_fold:end:NAME`, `travis_time:start:ID`
and `travis_time:end:ID:start=NS,finish=NS,duration=NS`, some followed by `,event=NAME`. A log is
untrusted input, so every count is bounded and malformed markers are ignored.

The rule for steps, which `web/static/markers.js` implements too (`tests/corpus/travis_time.json`
tests both):

- A start marker opens the timer with its id. If that timer is already open, it restarts.
- An end marker closes the open timer with its id; without one it is ignored. Timers nest: all
  timers opened after the closed one are discarded.
- A closed timer is a step if `start` and `finish` are 19-digit nanoseconds since the epoch and
  `finish` is at most 30 days after `start`. `duration` is ignored: it may contradict them.
- A step belongs to the line of its start marker and to the innermost fold open there. An end
  marker of a fold closes the innermost open fold of that name and all folds inside it.
- At most 100 timers and 100 folds are open at a time; one more discards the oldest. At most 20,000
  markers and 1,000 steps are read.
"""

import re
from typing import NamedTuple

import msgspec

MAX_MARKERS = 20_000
MARKER = re.compile(rb"travis_(?:fold|time):(?:start|end):[^\r\n\x1b]{1,200}")
# A marker that starts closer than this to the end of a piece may continue in the next one.
MARKER_BYTES = 256

FOLD = re.compile(r"travis_fold:(start|end):([\w.-]{1,100})", re.ASCII)
TIME = re.compile(r"travis_time:(start|end):([\w.-]{1,64})(?::([\w=,.-]*))?", re.ASCII)
# Nanoseconds since the epoch, from 2001 to 2096.
TIMESTAMP = re.compile(r"[1-3]\d{18}", re.ASCII)
MAX_STEP_NS = 30 * 24 * 3600 * 10**9
MAX_STEPS = 1000
MAX_OPEN = 100


class Marker(NamedTuple):
    """A marker: its byte offset, its line (from 0) and its text."""

    byte: int
    line: int
    text: str


class MarkerReader:
    """Finds the first `MAX_MARKERS` markers of a log that is fed in pieces of any size."""

    def __init__(self) -> None:
        self.truncated = False
        self._count = 0
        self._tail = b""  # unread bytes, which may contain an incomplete marker
        self._at = self._line = 0  # byte offset and line of the tail

    def feed(self, piece: bytes, *, last: bool = False) -> list[Marker]:
        """Read the next piece; with `last`, a marker may end at the end of the log."""
        if self.truncated:
            return []
        text = self._tail + piece
        upto = len(text) if last else max(len(text) - MARKER_BYTES, 0)
        markers: list[Marker] = []
        counted, line = 0, self._line
        for match in MARKER.finditer(text):
            if match.start() >= upto:
                break
            if self._count == MAX_MARKERS:
                self.truncated = True
                break
            self._count += 1
            line += text.count(b"\n", counted, match.start())
            counted = match.start()
            markers.append(Marker(self._at + counted, line, match[0].decode("utf-8", "replace")))
            upto = max(upto, match.end())
        self._line = line + text.count(b"\n", counted, upto)
        self._at += upto
        self._tail = text[upto:]
        return markers


class Step(msgspec.Struct, frozen=True):
    """A timed step of a job: its line from 0, its times in nanoseconds since the epoch.

    `event` is the runner's name for the step and `fold` the fold it started in; both may be empty.
    """

    id: str
    event: str
    fold: str
    line: int
    start_ns: int
    finish_ns: int


class StepReader:
    """Reads the timed steps of a log fed in pieces; `steps` is in the order of end markers."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self._markers = MarkerReader()
        self._folds: list[str] = []
        self._open: dict[str, tuple[str, int]] = {}  # fold and line of each open timer

    def feed(self, piece: bytes, *, last: bool = False) -> None:
        """Read the next piece; `last` marks the end of the log."""
        for marker in self._markers.feed(piece, last=last):
            if fold := FOLD.fullmatch(marker.text):
                self._fold(fold[1], fold[2])
            elif time := TIME.fullmatch(marker.text):
                self._time(time[1], time[2], time[3] or "", marker.line)

    def _fold(self, edge: str, name: str) -> None:
        if edge == "start":
            self._folds = [*self._folds[1 - MAX_OPEN :], name]
        elif name in self._folds:
            while self._folds.pop() != name:
                pass

    def _time(self, edge: str, timer: str, fields: str, line: int) -> None:
        if edge == "start":
            self._open.pop(timer, None)
            self._open[timer] = (self._folds[-1] if self._folds else "", line)
            if len(self._open) > MAX_OPEN:
                del self._open[next(iter(self._open))]
        elif opened := self._open.get(timer):
            while self._open.popitem()[0] != timer:
                pass
            self._close(timer, fields, *opened)

    def _close(self, timer: str, text: str, fold: str, line: int) -> None:
        fields = dict(field.partition("=")[::2] for field in text.split(","))
        start, finish = fields.get("start", ""), fields.get("finish", "")
        if not (TIMESTAMP.fullmatch(start) and TIMESTAMP.fullmatch(finish)):
            return
        if 0 <= int(finish) - int(start) <= MAX_STEP_NS and len(self.steps) < MAX_STEPS:
            event = fields.get("event", "")
            self.steps.append(Step(timer, event, fold, line, int(start), int(finish)))
