"""Finding a text in the lines of a log, piece by piece."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from litestar.exceptions import HTTPException

# Escape sequences that show nothing: control sequences, titles and links, single characters.
ESCAPES = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\x07\x1b\n]*(?:\x07|\x1b\\)|[ -/]*[0-Z\\^-~])"
)
MOST_LINES = 10_000
# A line longer than this is searched as it comes, with as much overlap as a match may take.
LONG_BYTES = 4 * 1024 * 1024


class Turns:
    """Lets so many work at once, and a few more wait for their turn."""

    def __init__(self, *, at_once: int, waiting: int) -> None:
        self._places = asyncio.Semaphore(at_once)
        self._most = at_once + waiting
        self._here = 0

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for a turn.

        Raises:
            HTTPException: 503, too many wait already.
        """
        if self._here >= self._most:
            raise HTTPException("too many at once", status_code=503, headers={"Retry-After": "2"})
        self._here += 1
        try:
            async with self._places:
                yield
        finally:
            self._here -= 1


class Search:
    """Counts the lines that contain a text, without their escape sequences; lines count from 0."""

    def __init__(self, text: str, *, case: bool) -> None:
        self._case = case
        self._text = text if case else text.casefold()
        self._overlap = 8 * len(text.encode()) + 4096
        self._rest = b""  # the line that goes on in the next piece
        self._line = 0
        self._found_in_line = False
        self.count = 0
        self.lines: list[int] = []

    def feed(self, piece: bytes) -> None:
        """Search the next bytes of the log."""
        text = self._rest + piece
        end = text.rfind(b"\n") + 1
        if end:
            self._search(text[:end])
            self._found_in_line = False
        self._rest = text[end:]
        if len(self._rest) > LONG_BYTES:
            self._search(self._rest)
            self._rest = self._rest[-self._overlap :]

    def end(self) -> None:
        """Search the last line, which may lack its line feed."""
        self._search(self._rest)

    def _search(self, piece: bytes) -> None:
        text = ESCAPES.sub("", piece.decode("utf-8", "replace"))
        if not self._case:
            text = text.casefold()
        at, line, seen = text.find(self._text), self._line, 0
        while at >= 0:
            line += text.count("\n", seen, at)
            seen = at
            self._hit(line)
            following = text.find("\n", at)
            at = text.find(self._text, following + 1) if following >= 0 else -1
        self._line += text.count("\n")

    def _hit(self, line: int) -> None:
        if line == self._line and self._found_in_line:
            return
        self._found_in_line = line == self._line or self._found_in_line
        self.count += 1
        if len(self.lines) < MOST_LINES:
            self.lines.append(line)
