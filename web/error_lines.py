"""Finds the lines of a log that report errors.

The rules see a line as a reader does: what follows its last carriage return, without escape
sequences; those for red text see the sequences, too.
"""

import re
from itertools import pairwise
from typing import NamedTuple

MAX_ERRORS = 1000
MAX_LINE_BYTES = 64 * 1024
ESCAPES = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]_][^\x07\x1b\n]*(?:\x07|\x1b\\))")


class Rule(NamedTuple):
    """A pattern of lines, and a word that they contain, which is fast to find."""

    word: bytes
    line: re.Pattern[bytes]
    raw: bool = False


def _rule(word: bytes, line: bytes = b"") -> Rule:
    return Rule(word, re.compile(line or re.escape(word)))


_RED = re.compile(
    rb"\x1b\[(?:\d+;)?(?:(?:[39]1;1|1;[39]1)m|[39]1m\x1b\[1m)[^\x1b]*\w"  # bold
    rb"|\x1b\[(?:0;)?[39]1m[^\x1b]*\b(?i:error|failed|failure|fatal|exception)\b"
)
RULES = (
    # Exit codes; "Done. Your build exited with 1." repeats another line.
    _rule(
        b"exit",
        rb"(?:(?<!build )exited with (?:status |code )?"
        rb"|(?:Process completed with|Job failed:|failed with) exit code )(?!0\b)\d",
    ),
    _rule(b": *** ", rb"^g?make(?:\[\d+\])?: \*\*\* "),
    # Annotations.
    _rule(b"##[error]", rb"^(?:\S+Z )?##\[error\]"),
    _rule(b"::error", rb"^(?:\S+Z )?::error(?: [^\n]*?)?::"),
    # Tracebacks of Python, Java, Go and Rust, and Ruby.
    _rule(b"Traceback (most recent call last)"),
    _rule(b"Exception", rb"^Exception in thread |^(?:[a-z]\w*\.)+[A-Z][\w$]*Exception(?:: |$)"),
    _rule(b"Error", rb"^(?:java|org|com|net|io)\.(?:[a-z]\w*\.)+[A-Z][\w$]*Error(?:: |$)"),
    _rule(b"panic", rb"^panic: |^thread '.*' panicked at "),
    _rule(b".rb:", rb"^\S+\.rb:\d+:in [`'][^']*': .+ \([A-Z][\w:]*\)$"),
    # Test and build tools, but not "FAILED: 0".
    _rule(b"FAIL", rb"(?<!\b0 )\bFAILED\b(?!\W*0\b)|^\s*--- FAIL: |BUILD FAILURE"),
    Rule(b"1m", _RED, raw=True),
)


class ErrorReader:
    """Reads a log in pieces; `lines`, from 0, are the first `MAX_ERRORS` lines that report errors.

    Of consecutive ones only the first is listed.
    """

    def __init__(self) -> None:
        self.lines: list[int] = []
        self._rest = b""  # the incomplete last line
        self._line = 0  # its number
        self._last = -2  # the last line that matched

    def feed(self, piece: bytes) -> None:
        """Read the next piece."""
        if len(self.lines) >= MAX_ERRORS:
            return
        text = self._rest + piece
        end = text.rfind(b"\n") + 1
        if end:
            self._read(text[:end])
        self._rest = text[max(end, len(text) - MAX_LINE_BYTES) :]

    def end(self) -> None:
        """Read a last line without a line feed."""
        self.feed(b"\n")

    def _read(self, text: bytes) -> None:
        begins = {begin for rule in RULES for begin in _matches(rule, text)}
        line = self._line
        for before, begin in pairwise([0, *sorted(begins)]):
            line += text.count(b"\n", before, begin)
            if line != self._last + 1 and len(self.lines) < MAX_ERRORS:
                self.lines.append(line)
            self._last = line
        self._line += text.count(b"\n")


def _matches(rule: Rule, text: bytes) -> list[int]:
    """Return the offsets of the matching lines."""
    begins = []
    at = text.find(rule.word)
    while at >= 0:
        begin = text.rfind(b"\n", 0, at) + 1
        end = text.find(b"\n", at)
        line = text[begin:end].rstrip(b"\r").rpartition(b"\r")[2]
        if rule.line.search(line if rule.raw else ESCAPES.sub(b"", line)):
            begins.append(begin)
        at = text.find(rule.word, end)
    return begins
