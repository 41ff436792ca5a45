"""The outline of a log: positions of lines and markers, for viewers that do not read all of it."""

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field

from logflume.markers import BARE, BARE_WORDS, MarkerReader
from web.content import Content
from web.error_lines import ErrorReader
from web.models import OutlineBody
from web.scans import in_thread
from web.streams.cursor import Cursor

MAX_BARE_BYTES = 4096
BLOCK_BYTES = 64 * 1024
CACHED = 32


@dataclass
class Outline:
    """See `OutlineBody` for the fields."""

    bytes: int = 0
    newlines: list[int] = field(default_factory=lambda: [0])
    marks: list[list[int | str]] = field(default_factory=list)
    marks_truncated: bool = False
    bare_lines: list[int] = field(default_factory=list)
    error_lines: list[int] = field(default_factory=list)
    ends_in_line: bool = False

    @property
    def lines(self) -> int:
        """Number of lines, including a last one without a line feed."""
        return self.newlines[-1] + self.ends_in_line


class _Reader:
    """Builds an outline from pieces of any size."""

    def __init__(self) -> None:
        self.outline = Outline()
        self._block = b""  # an incomplete block
        self._marks = MarkerReader()
        self._errors = ErrorReader()
        self._line = b""  # the incomplete last line, if it is short
        self._lines = 0

    def feed(self, piece: bytes) -> None:
        block = self._block + piece
        whole = len(block) - len(block) % BLOCK_BYTES
        for start in range(0, whole, BLOCK_BYTES):
            self._count(block.count(b"\n", start, start + BLOCK_BYTES))
        self._block = block[whole:]
        self._find_marks(piece)
        self._find_bare_lines(piece)
        self._errors.feed(piece)
        self.outline.bytes += len(piece)
        if piece:
            self.outline.ends_in_line = not piece.endswith(b"\n")

    def end(self) -> Outline:
        if self._block:
            self._count(self._block.count(b"\n"))
        self._find_marks(b"", last=True)
        self._find_bare_lines(b"\n")
        self._errors.end()
        self.outline.error_lines = self._errors.lines
        return self.outline

    def _count(self, newlines: int) -> None:
        self.outline.newlines.append(self.outline.newlines[-1] + newlines)

    def _find_bare_lines(self, piece: bytes) -> None:
        text = self._line + piece
        end = text.rfind(b"\n") + 1
        counted, line = 0, self._lines
        has_some = any(word in text for word in BARE_WORDS)
        for match in BARE.finditer(text, 0, end) if has_some else ():
            if len(match[0]) <= MAX_BARE_BYTES:
                line += text.count(b"\n", counted, match.start())
                counted = match.start()
                self.outline.bare_lines.append(line)
        self._lines += text.count(b"\n", 0, end)
        self._line = text[end:] if len(text) - end <= MAX_BARE_BYTES else b"too long"

    def _find_marks(self, piece: bytes, *, last: bool = False) -> None:
        self.outline.marks += [[*mark] for mark in self._marks.feed(piece, last=last)]
        self.outline.marks_truncated = self._marks.truncated


def outline_of(pieces: Iterable[bytes]) -> Outline:
    """Make the outline of a log in memory."""
    reader = _Reader()
    for piece in pieces:
        reader.feed(piece)
    return reader.end()


class Outlines:
    """A cache of recent outlines, by ETag: archived logs do not change."""

    def __init__(self) -> None:
        self._cache: OrderedDict[str, Outline] = OrderedDict()

    async def of(self, content: Content) -> Outline:
        """Return the outline of a log, from the cache if its bytes are the same."""
        outline = self._cache.pop(content.etag, None)
        if outline is None:
            reader = _Reader()
            async for piece in content.read():
                await in_thread(reader.feed, piece)
            outline = await in_thread(reader.end)
        self._cache[content.etag] = outline
        while len(self._cache) > CACHED:
            self._cache.popitem(last=False)
        return outline


def outline_body(content: Content, outline: Outline, cursor: Cursor | None) -> OutlineBody:
    """Make the response; `cursor` is where the stream of the log continues, None if it ended."""
    return OutlineBody(
        job_id=content.log.job_id,
        bytes=outline.bytes,
        lines=outline.lines,
        block_bytes=BLOCK_BYTES,
        newlines=outline.newlines,
        marks=outline.marks,
        marks_truncated=outline.marks_truncated,
        bare_lines=outline.bare_lines,
        error_lines=outline.error_lines,
        cursor=str(cursor or ""),
        ended=cursor is None or cursor.ended,
    )
