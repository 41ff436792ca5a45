"""Exponential backoff with jitter, for everything that is retried outside of Temporal."""

import random


class Backoff:
    """Delays in seconds that double up to a maximum.

    Jitter (±50 %) keeps processes that lost the same server from returning at the same moment.
    """

    def __init__(self, maximum: float, first: float = 0.1) -> None:
        self._first = first
        self._maximum = maximum
        self._next = first

    def next(self) -> float:
        """The delay before the next retry, in seconds."""
        delay, self._next = self._next, min(2 * self._next, self._maximum)
        return delay * random.uniform(0.5, 1.5)  # noqa: S311 - not a secret

    def reset(self) -> None:
        """Start again at the first delay, after a success."""
        self._next = self._first
