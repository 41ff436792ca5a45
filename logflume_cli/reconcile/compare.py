"""What is wrong with a log, by its row and its object alone; and the order of both."""

from collections.abc import Iterator
from typing import Literal

from db.recovery import Row
from logflume.archive.store import Stored
from logflume.domain import MAX_JOB_ID, Origin

Wrong = Literal["newer", "missing", "other", "leftover"]
DIGITS = len(str(MAX_JOB_ID))


def origin_of(found: Stored) -> Origin:
    """What an object says it was made of; upload 0 where it does not."""
    return Origin.read(found.origin) if found.origin else Origin(0)


def compare(row: Row | None, found: Stored | None) -> Wrong | None:
    """Tell what is wrong.

    `newer`: the row, if there is one, knows nothing of the object's upload. `missing`: the row says
    that the archive holds the log, and it does not. `other`: it holds something else. `leftover`:
    it holds a log whose row says that it has no text.

    An object of an earlier release tells no upload. Without a row it is newer; beside one that is
    not archived it may be older or newer, so nothing is wrong with it.
    """
    if found is None:
        return "missing" if row and row.verified else None
    if row is None:
        return "newer" if found.sha256 else None  # else it was never ours
    if origin_of(found).upload > row.uploads:
        return "newer"
    if row.verified:
        # Of a log that travis-logs archived nobody knows the bytes.
        same = row.sha256 is None or (found.sha256, found.bytes) == (row.sha256, row.bytes)
        return None if same else "other"
    is_leftover = found.origin and not row.has_text and not row.outdated
    return "leftover" if is_leftover else None


def between(after: str, last: str | None, *, inclusive: bool = False) -> Iterator[tuple[int, int]]:
    """Ranges of the job ids whose keys come after that of one and up to that of another.

    Keys are in the order of their characters: those of 10 to 19, of 100 to 199 and so on come
    between those of 1 and 2. `after` empty: from the first one on; `last` None: to the end.
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
