"""Detects that too many recent messages are invalid; no I/O."""

from collections import deque


class DeadLetterLimit:
    """Limits the share of invalid messages among the last `window` messages.

    Invalid messages in such numbers come from a bad release or a wrong exchange: dead-lettering
    them would empty the queue into the dead-letter queue. Modelled on arroyo's DlqLimit.
    """

    def __init__(self, max_share: float, window: int) -> None:
        self._max_share = max_share
        self._window = window
        self._batches: deque[tuple[int, int]] = deque()
        self._messages = self._invalid = 0

    def record(self, messages: int, invalid: int) -> None:
        """Count a batch: its messages, and how many of them are invalid."""
        self._batches.append((messages, invalid))
        self._messages += messages
        self._invalid += invalid
        while self._messages - self._batches[0][0] >= self._window:
            messages, invalid = self._batches.popleft()
            self._messages -= messages
            self._invalid -= invalid

    @property
    def is_exceeded(self) -> bool:
        """Whether the share is too high; False until `window` messages were counted."""
        return self._messages >= self._window and self._invalid > self._max_share * self._messages

    def describe(self) -> str:
        """The share of invalid messages, for people."""
        return f"{self._invalid} of the last {self._messages} messages are invalid"

    def reset(self) -> None:
        """Start counting from zero."""
        self._batches.clear()
        self._messages = self._invalid = 0
