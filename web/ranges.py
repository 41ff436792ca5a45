"""Conditional and partial answers, as far as a log's reader needs them (RFC 9110, 13 and 14)."""

import re

_RANGE = re.compile(r"bytes=\s*(\d{0,18})-(\d{0,18})\s*", re.ASCII)


class Unsatisfiable(Exception):
    """The range asked for begins behind the last byte."""


def matches(header: str, etag: str) -> bool:
    """Whether an `If-None-Match` header names this entity tag (compared weakly)."""
    named = [tag.strip().removeprefix("W/").strip('"') for tag in header.split(",")]
    return "*" in named or etag in named


def byte_range(header: str, size: int) -> tuple[int, int] | None:
    """The bytes asked for, as start and stop; None where all are to be sent.

    A header that is no single range of bytes is passed over, as the RFC allows.

    Raises:
        Unsatisfiable: it asks for bytes that there are not.
    """
    found = _RANGE.fullmatch(header)
    if found is None or found[1] == found[2] == "":
        return None
    if not found[1]:
        start, stop = max(size - int(found[2]), 0), size
    else:
        start, stop = int(found[1]), int(found[2]) + 1 if found[2] else size
        if found[2] and stop <= start:
            return None
    if start >= size:
        raise Unsatisfiable
    return start, min(stop, size)
