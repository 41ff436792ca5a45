"""Conditional requests and single byte ranges (RFC 9110, sections 13 and 14)."""

import re

_RANGE = re.compile(r"bytes=\s*(\d{0,18})-(\d{0,18})\s*", re.ASCII)


class Unsatisfiable(Exception):
    """The range starts after the last byte."""


def matches(header: str, etag: str) -> bool:
    """Whether an `If-None-Match` header names this entity tag (compared weakly)."""
    named = [tag.strip().removeprefix("W/").strip('"') for tag in header.split(",")]
    return "*" in named or etag in named


def byte_range(header: str, size: int) -> tuple[int, int] | None:
    """The requested bytes, as start and exclusive stop; None for the whole content.

    Any other header than one byte range is ignored, as the RFC allows.

    Raises:
        Unsatisfiable: the range starts after the last byte.
    """
    match = _RANGE.fullmatch(header)
    if match is None or match[1] == match[2] == "":
        return None
    if not match[1]:
        start, stop = max(size - int(match[2]), 0), size
    else:
        start, stop = int(match[1]), int(match[2]) + 1 if match[2] else size
        if match[2] and stop <= start:
            return None
    if start >= size:
        raise Unsatisfiable
    return start, min(stop, size)
