"""Makes the text of a log harmless for a terminal: only colours are left, or nothing."""

import codecs
import re

# Markers of folds and times, which a terminal would overwrite; then control sequences.
_HIDDEN = re.compile(
    r"travis_(?:fold|time):(?:start|end):[\w.,=:/+@-]{1,200}\r?(?:\x1b\[0?K)?"
    r"|section_(?:start|end):[0-9]{1,20}:[\w.,=\[\]-]{1,200}\r\x1b\[0?K"
    r"|(?P<colour>\x1b\[[0-9;:]{0,64}m)"
    r"|(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]?"
    r"|(?:\x1b[]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c\n]*(?:\x07|\x1b\\|\x9c)?"
    r"|\x1b[ -/]*[0-~]?"
    r"|(?P<newline>\r+\n?)"
)
_MARKERS = ("travis_fold:", "travis_time:", "section_start:", "section_end:")
_BEGINNINGS = {marker[:size] for marker in _MARKERS for size in range(1, len(marker) + 1)}
_ESCAPE = r"(?:(?:\x1b\[|\x9b)[0-?]{0,4096}[ -/]*|\x1b[ -/]*)"
# What may be the beginning of one of these, at the end of a piece.
_INCOMPLETE = re.compile(
    rf"(?:{_ESCAPE}|\r+"
    r"|(?:\x1b[]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c\n]{0,4096}\x1b?"
    rf"|{_ESCAPE}?(?:{'|'.join(_MARKERS)})[\w.,=:/+@\[\]-]{{0,230}}(?:\r(?:\x1b(?:\[0?)?)?)?"
    rf"|{_ESCAPE}?(?:{'|'.join(sorted(_BEGINNINGS))}))\Z"
)
RESET = "\x1b[0m"


class Cleaner:
    """Cleans pieces of a log; a carriage return alone becomes a line break."""

    def __init__(self, *, colours: bool) -> None:
        self._colours = colours
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._held = ""
        self._is_coloured = False

    def feed(self, piece: bytes, *, last: bool = False) -> str:
        """Return the clean text of what is complete; with `last`, of everything."""
        text = self._held + self._decode(piece, last)
        incomplete = None if last else _INCOMPLETE.search(text)
        end = incomplete.start() if incomplete else len(text)
        self._held = text[end:]
        return "".join(map(_printable, self._split(text[:end])))

    def end(self) -> str:
        """Return the rest, and what ends the log's last colour."""
        return self.feed(b"", last=True) + (RESET if self._is_coloured else "")

    def _split(self, text: str) -> list[str]:
        """The text between control sequences, and those that are allowed."""
        split, start = [], 0
        for match in _HIDDEN.finditer(text):
            split.append(text[start : match.start()])
            start = match.end()
            if match["newline"]:
                split.append("\n")
            elif match["colour"] and self._colours:
                self._is_coloured = True
                split.append(match[0])
        return [*split, text[start:]]


def _printable(text: str) -> str:
    """Text with other control characters, and those that change the direction, as escapes."""
    if text.isprintable() or text.startswith("\x1b["):
        return text
    return "".join(c if c.isprintable() or c in "\n\t" else repr(c)[1:-1] for c in text)


def plain(text: bytes) -> str:
    """The visible text of a line."""
    return Cleaner(colours=False).feed(text, last=True)
