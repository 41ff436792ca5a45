"""Bounds the messages that are held unacknowledged, in bytes and in number; no I/O."""

# The prefetch grows again after this many prefetches were acknowledged with the held bytes at no
# more than the limit divided by CALM_DIVISOR.
CALM_PREFETCHES = 8
CALM_DIVISOR = 4


class InFlightWindow:
    """The messages delivered and not yet acknowledged.

    `prefetch` is how many to request at the moment: the maximum, or fewer while they are large.
    """

    def __init__(self, max_bytes: int, max_messages: int, prefetch: int) -> None:
        self._max_bytes = max_bytes
        self._max_messages = max_messages
        self.prefetch = prefetch
        self.bytes = self.messages = 0
        self._acked = self._peak = 0

    def fits(self, size: int) -> bool:
        """Whether a message of this size fits; a message alone fits whatever its size."""
        return not self.messages or self.bytes + size <= self._max_bytes

    def add(self, size: int) -> None:
        """Add a message."""
        self.bytes += size
        self.messages += 1
        self._peak = max(self._peak, self.bytes)

    def remove(self, messages: int, size: int) -> None:
        """Remove messages that were acknowledged, and the bytes of their bodies."""
        self.bytes -= size
        self.messages -= messages
        self._acked += messages
        if self._acked >= CALM_PREFETCHES * self.prefetch and not self._is_calm:
            self._measure_again()

    @property
    def is_half_free(self) -> bool:
        """Whether consuming may start again."""
        return 2 * self.bytes <= self._max_bytes

    @property
    def can_grow(self) -> bool:
        """Whether the prefetch is reduced and messages have been small for a while."""
        return (
            self.prefetch < self._max_messages
            and self._acked >= CALM_PREFETCHES * self.prefetch
            and self._is_calm
        )

    def shrink(self) -> None:
        """Reduce the prefetch to what fits at the average size of the messages held now."""
        fit = self.prefetch // 2
        if self.bytes:
            fit = min(self._max_bytes * self.messages // self.bytes, self.prefetch)
        self._set_prefetch(max(1, fit))

    def grow(self) -> None:
        """Double the prefetch, up to the maximum."""
        self._set_prefetch(min(2 * self.prefetch, self._max_messages))

    def _set_prefetch(self, prefetch: int) -> None:
        self.prefetch = prefetch
        self._measure_again()

    @property
    def _is_calm(self) -> bool:
        return CALM_DIVISOR * self._peak <= self._max_bytes

    def _measure_again(self) -> None:
        self._acked, self._peak = 0, self.bytes
