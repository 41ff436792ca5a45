"""Ends activities at one of their awaits, as a dying worker does."""

import asyncio
import functools
import itertools
from collections.abc import Callable, Coroutine, Generator
from typing import Any


class EndAtAwait:
    """Awaits a coroutine up to one of its awaits; the result says whether it completed.

    Each await counts twice: 0 is before the first operation runs, 1 is after it, before the
    coroutine resumes; 2 and 3 are the same for the second, and so on. At `at`, `cancel` is called;
    if it is None, the coroutine never resumes, as in a killed process: it does not clean up until
    it is closed.
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
