"""How a log's row and its object differ, and the job ids between two objects in a listing."""

from collections.abc import Iterator
from typing import Literal

from db.recovery import Row
from logflume.archive.store import ObjectInfo
from logflume.domain import MAX_JOB_ID, Origin

Difference = Literal["newer", "missing", "different", "unlabelled", "leftover"]
DIGITS = len(str(MAX_JOB_ID))


def origin_of(info: ObjectInfo) -> Origin:
    """The origin in an object's metadata; upload 0 if it has none."""
    return Origin.read(info.origin) if info.origin else Origin(0)


def compare(row: Row | None, info: ObjectInfo | None) -> Difference | None:
    """Compare a log's row with its object; None if they agree.

    `newer`: the object's upload is not recorded in the row, or there is no row. `missing`: the row
    says the log is archived, but there is no object. `different`: the object has other content than
    the row says, by its size or metadata; if the sizes are equal, only reading it can show that.
    `unlabelled`: it was read and has the content, but other metadata. `leftover`: there is an
    object, but the row says that the log has no text.

    Objects of an earlier release have no upload number. Without a row such an object is newer;
    beside a row that is not archived it may be older or newer, so they agree.
    """
    if info is None:
        return "missing" if row and row.verified else None
    if row is None:
        return "newer" if info.sha256 else None  # without SHA-256 it is not ours
    if origin_of(info).upload > row.uploads:
        return "newer"
    if row.verified:
        # Logs imported from travis-logs's archive have no SHA-256.
        is_same = row.sha256 is None or (info.sha256, info.bytes) == (row.sha256, row.bytes)
        return None if is_same else "different"
    is_leftover = info.origin and not row.has_text and not row.outdated
    return "leftover" if is_leftover else None


def between(after: str, last: str | None, *, inclusive: bool = False) -> Iterator[tuple[int, int]]:
    """Ranges of job ids whose keys sort after the key of job `after`, up to that of job `last`.

    Keys sort as text: 10 to 19, 100 to 199 and so on come between 1 and 2. `after` empty: from the
    first key; `last` None: up to the last key; `inclusive`: with `after` itself.
    """
    for digits in range(1, DIGITS + 1):
        low = 10 ** (digits - 1) if digits > 1 else 0
        high = min(10**digits - 1, MAX_JOB_ID)
        if len(after) >= digits:
            is_in = inclusive and len(after) == digits
            low = max(low, int(after[:digits]) + (not is_in))
        elif after:
            low = max(low, int(after.ljust(digits, "0")))
        if last is not None:
            cut = int(last[:digits].ljust(digits, "0"))
            high = min(high, cut if len(last) >= digits else cut - 1)
        if low <= high:
            yield low, high
