"""Activities that are ended at one of their awaits, as workers end."""

import asyncio
import functools
import itertools
from collections.abc import Callable, Coroutine, Generator
from typing import Any


class Ending:
    """Awaits a coroutine up to one of its awaits; the result tells whether it came to its end.

    They are counted in halves: 0 is when the first was asked for what it waits for, 1 when that
    was there, before the coroutine heard of it, 2 when the second was asked, and so on. Then
    `cancel` is called, or where it is None the coroutine is never heard of again, as in a process
    that was killed: until it is closed, it does not even clean up.
    """

    def __init__(
        self, coroutine: Coroutine[Any, Any, Any], at: int, cancel: Callable[[], Any] | None
    ) -> None:
        self._coroutine = coroutine
        self._at = at
        self._cancel = cancel

    def __await__(self) -> Generator[Any, None, bool]:
        steps = self._coroutine.__await__()
        resume: Callable[[], Any] = functools.partial(steps.send, None)
        for place in itertools.count(0, 2):
            try:
                waited_for = resume()
            except StopIteration:
                return True
            if self._ends(place):
                return False
            try:
                yield waited_for
            except asyncio.CancelledError as error:
                resume = functools.partial(steps.throw, error)
            else:
                resume = functools.partial(steps.send, None)
            if self._ends(place + 1):
                return False
        raise AssertionError

    def _ends(self, place: int) -> bool:
        if place != self._at:
            return False
        if self._cancel is None:
            return True
        self._cancel()
        return False
