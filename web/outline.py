"""Where a log's lines and markers are, so that a viewer can jump without reading all before."""

from collections import OrderedDict
from dataclasses import dataclass, field

from logflume.markers import MarkerReader
from web.content import Content
from web.models import OutlineBody
from web.streams.cursor import Cursor

BLOCK_BYTES = 64 * 1024
KEPT = 32


@dataclass
class Outline:
    """What was found in a log's bytes; see `OutlineBody` for what it means."""

    bytes: int = 0
    newlines: list[int] = field(default_factory=lambda: [0])
    marks: list[list[int | str]] = field(default_factory=list)
    marks_truncated: bool = False
    ends_in_line: bool = False

    @property
    def lines(self) -> int:
        """Lines, the last of which may lack its line feed."""
        return self.newlines[-1] + self.ends_in_line


class _Reader:
    """Reads pieces of any size, block by block."""

    def __init__(self) -> None:
        self.outline = Outline()
        self._block = b""  # less than a block
        self._marks = MarkerReader()

    def feed(self, piece: bytes) -> None:
        block = self._block + piece
        whole = len(block) - len(block) % BLOCK_BYTES
        for start in range(0, whole, BLOCK_BYTES):
            self._count(block.count(b"\n", start, start + BLOCK_BYTES))
        self._block = block[whole:]
        self._find_marks(piece)
        self.outline.bytes += len(piece)
        if piece:
            self.outline.ends_in_line = not piece.endswith(b"\n")

    def end(self) -> Outline:
        if self._block:
            self._count(self._block.count(b"\n"))
        self._find_marks(b"", last=True)
        return self.outline

    def _count(self, newlines: int) -> None:
        self.outline.newlines.append(self.outline.newlines[-1] + newlines)

    def _find_marks(self, piece: bytes, *, last: bool = False) -> None:
        self.outline.marks += [[*mark] for mark in self._marks.feed(piece, last=last)]
        self.outline.marks_truncated = self._marks.truncated


class Outlines:
    """Outlines of logs read lately: what is archived does not change, and is asked for again."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, Outline] = OrderedDict()

    async def of(self, content: Content) -> Outline:
        """Make a log's outline, or take the one made before of the same bytes."""
        kept = self._kept.pop(content.etag, None)
        if kept is None:
            reader = _Reader()
            async for piece in content.read():
                reader.feed(piece)
            kept = reader.end()
        self._kept[content.etag] = kept
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return kept


def outline_body(content: Content, outline: Outline, cursor: Cursor | None) -> OutlineBody:
    """Put together what a log's bytes showed and where its stream goes on (None: nowhere)."""
    return OutlineBody(
        job_id=content.log.job_id,
        bytes=outline.bytes,
        lines=outline.lines,
        block_bytes=BLOCK_BYTES,
        newlines=outline.newlines,
        marks=outline.marks,
        marks_truncated=outline.marks_truncated,
        cursor=str(cursor or ""),
        ended=cursor is None or cursor.ended,
    )
