"""Message properties that cannot be decoded must not cost the connection.

pamqp raises on a property it cannot read, in the middle of the stream, and aiormq then closes the
connection: the message comes again and does so for ever. Here such a property is left out or its
text replaced; the message's body, which is all that counts, is read.
"""

from datetime import datetime

from pamqp import decode
from pamqp.common import FieldTable

SHORT_BYTES = 255
_UNREADABLE = (ValueError, OverflowError, OSError, RecursionError)


def install() -> None:
    """Make pamqp, for this process, read properties tolerantly."""
    decode.METHODS.update({"shortstr": _short_str, "timestamp": _timestamp, "table": _table})


def _short_str(value: bytes) -> tuple[int, str]:
    end = 1 + value[0]
    text = value[1:end].decode("utf-8", "replace")
    # What is put in the place of a byte is longer: no more than can be sent on with a reject.
    return end, text.encode()[:SHORT_BYTES].decode("utf-8", "ignore")


def _timestamp(value: bytes) -> tuple[int, datetime | None]:
    try:
        return decode.timestamp(value)
    except _UNREADABLE:
        return 8, None


def _table(value: bytes) -> tuple[int, FieldTable]:
    try:
        return decode.field_table(value)
    except _UNREADABLE:
        return 4 + int.from_bytes(value[:4], "big"), {}
