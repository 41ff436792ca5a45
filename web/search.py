"""Finds a text in the lines of a log, piece by piece."""

import re
from collections import deque

# Invisible escape sequences: control sequences, titles and links, single characters.
ESCAPES = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\x07\x1b\n]*(?:\x07|\x1b\\)|[ -/]*[0-Z\\^-~])"
)
MAX_LINES = 10_000
# A longer line is searched in pieces, which overlap by the length of the longest match.
LONG_BYTES = 4 * 1024 * 1024


class Search:
    """Finds the lines that contain a text, ignoring escape sequences; lines are numbered from 0."""

    def __init__(self, text: str, *, case: bool, near: int = 0) -> None:
        self._case = case
        self._text = text if case else text.casefold()
        self._overlap = 8 * len(text.encode()) + 4096
        self._rest = b""  # an incomplete last line
        self._line = 0
        self._line_matched = False
        self._near = near
        self._before: deque[int] = deque(maxlen=MAX_LINES // 2)
        self._after: list[int] = []
        self._fed = 0
        self.count = self._count_before = 0
        self.line_start = 0
        """Where the last line starts, in bytes."""

    @property
    def lines(self) -> list[int]:
        """The matching lines around `near`, at most `MAX_LINES`."""
        return [*self._before, *self._after]

    @property
    def first(self) -> int:
        """The index, in all matching lines, of the first one in `lines`."""
        return self._count_before - len(self._before)

    @property
    def line(self) -> int:
        """The number of the last line."""
        return self._line

    def feed(self, piece: bytes) -> None:
        """Search the next piece of the log."""
        text = self._rest + piece
        end = text.rfind(b"\n") + 1
        self._fed += len(piece)
        if end:
            self.line_start = self._fed - (len(text) - end)
            self._search(text[:end])
            self._line_matched = False
        self._rest = text[end:]
        if len(self._rest) > LONG_BYTES:
            self._search(self._rest)
            self._rest = self._rest[-self._overlap :]

    def end(self) -> None:
        """Search a last line without a line feed."""
        self._search(self._rest)

    def _search(self, piece: bytes) -> None:
        text = ESCAPES.sub("", piece.decode("utf-8", "replace"))
        if not self._case:
            text = text.casefold()
        at, line, counted = text.find(self._text), self._line, 0
        while at >= 0:
            line += text.count("\n", counted, at)
            counted = at
            self._add(line)
            line_end = text.find("\n", at)
            at = text.find(self._text, line_end + 1) if line_end >= 0 else -1
        self._line += text.count("\n")

    def _add(self, line: int) -> None:
        if line == self._line and self._line_matched:
            return
        self._line_matched = line == self._line or self._line_matched
        self.count += 1
        if line < self._near:
            self._count_before += 1
            self._before.append(line)
        elif len(self._before) + len(self._after) < MAX_LINES:
            self._after.append(line)
