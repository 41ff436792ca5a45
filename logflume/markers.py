"""Markers that CI scripts write into a log, and the folds and timed steps they describe.

| system | start | end |
| --- | --- | --- |
| Travis CI | `travis_fold:start:NAME` | `travis_fold:end:NAME` |
| | `travis_time:start:ID` | `travis_time:end:ID:start=NS,finish=NS,duration=NS[,event=NAME]` |
| GitHub | `::group::NAME`, `##[group]NAME` | `::endgroup::`, `##[endgroup]` |
| GitLab | `section_start:SECONDS:NAME[OPTIONS]` | `section_end:SECONDS:NAME` |
| Buildkite | `--- NAME`, `+++ NAME`, `~~~ NAME` | the next of them; `^^^ +++` opens it |

Travis CI's markers may be anywhere; the others start a line, after colours and times at most. A log
is untrusted input, so every count is bounded and malformed markers are ignored.

The rules, which `web/static/markers.js` implements too (`tests/corpus/travis_time.json` and
`tests/corpus/steps.json` test both):

- An end marker of a fold closes the innermost open fold of its system and name and all folds inside
  it. Groups of GitHub and Buildkite do not nest: a start also ends the one before.
- A time start marker opens the timer with its id. If that timer is already open, it restarts.
- A time end marker closes the open timer with its id; without one it is ignored. Timers nest: all
  timers opened after the closed one are discarded.
- A closed timer is a step if `start` and `finish` are 19-digit nanoseconds since the epoch and
  `finish` is at most 30 days after `start`. `duration` is ignored: it may contradict them.
- A section of GitLab that its own end marker closes is a step, too; its times have 10 digits.
- A step belongs to the line of its start marker and to the innermost fold open there.
- Headers of diffs and results of Go tests are not markers of Buildkite.
- At most 100 timers and 100 folds are open at a time; one more discards the oldest. At most 20,000
  markers and 1,000 steps are read.
"""

import re
from typing import NamedTuple

import msgspec

MAX_MARKERS = 20_000
# What may precede a marker on its line: colours and times.
GAP = (
    rb"(?:\x1b\[[\d;]{0,12}[mK]|\r|\x1b_bk;t=\d{1,20}\x07"
    rb"|\d{4}-\d\d-\d\dT[\d:.]{8,20}Z (?:\d\d[OE][ +])?)"
)
ENDS = (
    rb"(?:::endgroup::|##\[endgroup\]|\^\^\^ \+\+\+"
    rb"|section_(?:start|end):\d{10}:[\w.-]{1,100}(?:\[[\w=,]{0,99}\])?)"
)
# Two patterns, because each has a constant start, which makes the search fast.
TRAVIS = re.compile(rb"travis_(?:fold|time):(?:start|end):[^\r\n\x1b]{1,200}")
OTHER = re.compile(
    rb"\n(?=[\x1b\r\d:#s+~^-])"
    + GAP
    + rb"{0,3}((?:::group::|##\[group\])[^\r\n\x1b]{0,200}|"
    + ENDS
    + rb"|(?:---|\+\+\+|~~~) (?!(?:[ab]/|/dev/null|FAIL|PASS|SKIP)|[^\n\t]*\t)[^\r\n\x1b]{1,200})"
)
# Lines that contain only markers which are not shown.
BARE = re.compile(
    b"^"
    + GAP
    + rb"*+(?:(?:travis_(?:fold|time):(?:start|end):[\w.,=:/+@-]{1,200}+|"
    + ENDS
    + b")"
    + GAP
    + b"*+)++$",
    re.MULTILINE,
)
# A text without these has no such line.
BARE_WORDS = (b"travis_", b"endgroup", b"section_", b"^^^ +++")
# A marker that starts closer than this to the end of a piece may continue in the next one.
MARKER_BYTES = 512

FOLD = re.compile(r"travis_fold:(start|end):([\w.-]{1,100})", re.ASCII)
TIME = re.compile(r"travis_time:(start|end):([\w.-]{1,64})(?::([\w=,.-]*))?", re.ASCII)
SECTION = re.compile(r"section_(start|end):(\d{10}):([\w.-]{1,100})(?:\[.*\])?", re.ASCII)
GROUP = re.compile(r"(?:::group::|##\[group\]|(?:---|\+\+\+|~~~) )(.*)")
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
        # The byte before the unread ones, and those, which may contain an incomplete marker.
        self._tail = b"\n"
        self._at = self._line = -1  # byte offset and line of the tail

    def feed(self, piece: bytes, *, last: bool = False) -> list[Marker]:
        """Read the next piece; with `last`, a marker may end at the end of the log."""
        if self.truncated:
            return []
        text = self._tail + piece
        upto = len(text) if last else len(text) - MARKER_BYTES
        if upto < 1:
            self._tail = text
            return []
        markers: list[Marker] = []
        counted, line = 0, self._line
        found = [*TRAVIS.finditer(text), *OTHER.finditer(text)]
        end = 0
        for match in sorted(found, key=re.Match[bytes].start):
            if match.start() >= upto:
                break
            if match.start() < end:
                continue  # in the name of another marker
            if self._count == MAX_MARKERS:
                self.truncated = True
                break
            self._count += 1
            end = match.end()
            start = match.start(match.lastindex or 0)
            line += text.count(b"\n", counted, start)
            counted = start
            name = text[start:end].decode("utf-8", "replace")
            markers.append(Marker(self._at + start, line, name))
            upto = max(upto, end)
        self._line = line + text.count(b"\n", counted, upto - 1)
        self._at += upto - 1
        before = text[upto - 1 : upto]
        self._tail = (before if before == b"\n" else b".") + text[upto:]
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


class _Fold(NamedTuple):
    """An open fold: the start time of a section of GitLab, and the name of the fold around it."""

    key: str
    name: str
    line: int
    start: str
    outer: str


class StepReader:
    """Reads the timed steps of a log fed in pieces; `steps` is in the order of end markers."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self._markers = MarkerReader()
        self._folds: list[_Fold] = []
        self._open: dict[str, tuple[str, int]] = {}  # fold and line of each open timer

    def feed(self, piece: bytes, *, last: bool = False) -> None:
        """Read the next piece; `last` marks the end of the log."""
        for marker in self._markers.feed(piece, last=last):
            if fold := FOLD.fullmatch(marker.text):
                self._fold(fold[1], f"travis {fold[2]}", fold[2], marker.line)
            elif time := TIME.fullmatch(marker.text):
                self._time(time[1], time[2], time[3] or "", marker.line)
            else:
                self._other(marker.text, marker.line)

    def _other(self, text: str, line: int) -> None:
        if section := SECTION.fullmatch(text):
            edge, seconds, name = section.groups()
            time = f"{seconds:0<19}"
            if closed := self._fold(edge, f"gitlab {name}", name, line, time):
                self._add((name, ""), (closed.outer, closed.line), closed.start, time)
        elif group := GROUP.fullmatch(text):
            system = "github" if text[0] in ":#" else "buildkite"
            self._fold("end", system)
            self._fold("start", system, group[1].strip(), line)
        elif text != "^^^ +++":
            self._fold("end", "github")

    def _fold(
        self, edge: str, key: str, name: str = "", line: int = 0, start: str = ""
    ) -> _Fold | None:
        """Open or close a fold; returns the closed one."""
        if edge == "start":
            outer = self._folds[-1].name if self._folds else ""
            self._folds = [*self._folds[1 - MAX_OPEN :], _Fold(key, name, line, start, outer)]
        elif any(fold.key == key for fold in self._folds):
            while (fold := self._folds.pop()).key != key:
                pass
            return fold
        return None

    def _time(self, edge: str, timer: str, fields: str, line: int) -> None:
        if edge == "start":
            self._open.pop(timer, None)
            self._open[timer] = (self._folds[-1].name if self._folds else "", line)
            if len(self._open) > MAX_OPEN:
                del self._open[next(iter(self._open))]
        elif opened := self._open.get(timer):
            while self._open.popitem()[0] != timer:
                pass
            values = dict(field.partition("=")[::2] for field in fields.split(","))
            event, start, finish = (values.get(name, "") for name in ("event", "start", "finish"))
            self._add((timer, event), opened, start, finish)

    def _add(self, name: tuple[str, str], opened: tuple[str, int], start: str, finish: str) -> None:
        if not (TIMESTAMP.fullmatch(start) and TIMESTAMP.fullmatch(finish)):
            return
        if 0 <= int(finish) - int(start) <= MAX_STEP_NS and len(self.steps) < MAX_STEPS:
            self.steps.append(Step(*name, *opened, int(start), int(finish)))
