"""What the transports of parts have in common."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from logflume.errors import LogflumeError

Total = dict[str, Any]


class PartTooLarge(LogflumeError):
    """The server refuses a part of this size."""


@dataclass(frozen=True)
class Answer:
    """The response to a part: the pace that the server wants, and the numbers that it misses."""

    flush_seconds: float | None = None
    missing: tuple[int, ...] = ()


class Transport(Protocol):
    """Sends parts of one job, one at a time."""

    # How long the server asked to wait before the next try, in seconds.
    retry_after: float

    def send(self, number: int, content: bytes, total: Total | None, timeout: float) -> Answer:
        """Send a part and wait until it is durable; `total` makes it the final one.

        Raises:
            ComponentError: it may succeed later.
            PartTooLarge: a smaller part may succeed.
            PermanentError: the server refuses, and will refuse again.
        """
        ...

    def idle(self, wait: Callable[[], object]) -> None:
        """Call `wait`, which blocks, while there is nothing to send."""
        ...
