"""How much is held, and how many messages to ask for so that it stays within bounds; no I/O."""

from collections.abc import Iterable

from drain.batch import Batch

# So many prefetches must have gone by, with no more held than this share of what may be, before
# more are asked for again.
CALM_PREFETCHES = 8
CALM_SHARE = 4


class Room:
    """Room for messages that are not acknowledged yet: so many bytes, and messages.

    `prefetch` is how many to ask for now: all that may be, or fewer where they are large.
    """

    def __init__(self, most_bytes: int, most_messages: int, prefetch: int) -> None:
        self._most_bytes = most_bytes
        self._most_messages = most_messages
        self.prefetch = prefetch
        self.bytes = self.messages = 0
        self._passed = self._peak = 0

    def fits(self, size: int) -> bool:
        """Tell whether there is room for a message; one alone finds it, whatever its size."""
        return not self.messages or self.bytes + size <= self._most_bytes

    def take(self, size: int) -> None:
        """Hold a message."""
        self.bytes += size
        self.messages += 1
        self._peak = max(self._peak, self.bytes)

    def free(self, batches: Iterable[Batch]) -> None:
        """Let go of batches that are acknowledged."""
        for batch in batches:
            self.bytes -= batch.bytes
            self.messages -= batch.count
            self._passed += batch.count
        if self._passed >= CALM_PREFETCHES * self.prefetch and not self._is_calm:
            self._look_anew()

    @property
    def is_half_free(self) -> bool:
        """Time to take messages again."""
        return 2 * self.bytes <= self._most_bytes

    @property
    def may_grow(self) -> bool:
        """Fewer messages are asked for than may be, and they have been small for a while."""
        return (
            self.prefetch < self._most_messages
            and self._passed >= CALM_PREFETCHES * self.prefetch
            and self._is_calm
        )

    def shrink(self) -> None:
        """Ask for as many as there is room for at the size of those held now."""
        fit = self.prefetch // 2
        if self.bytes:
            fit = min(self._most_bytes * self.messages // self.bytes, self.prefetch)
        self._ask_for(max(1, fit))

    def grow(self) -> None:
        """Ask for twice as many, as far as that is allowed."""
        self._ask_for(min(2 * self.prefetch, self._most_messages))

    def _ask_for(self, prefetch: int) -> None:
        self.prefetch = prefetch
        self._look_anew()

    @property
    def _is_calm(self) -> bool:
        return CALM_SHARE * self._peak <= self._most_bytes

    def _look_anew(self) -> None:
        self._passed, self._peak = 0, self.bytes
