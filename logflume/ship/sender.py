"""Sends what is in the spool: parts with fixed boundaries, one at a time, in order."""

import hashlib
import time
from collections.abc import Callable
from typing import TypeVar

from logflume.backoff import Backoff
from logflume.errors import ComponentError, PermanentError
from logflume.ship.spool import Spool
from logflume.ship.transport import Answer, PartTooLarge, Total, Transport

T = TypeVar("T")

PART_BYTES = 256 * 1024
MIN_PART_BYTES = 1024
# How often the size of the spool is checked while there is nothing to send.
POLL_SECONDS = 0.1
REQUEST_SECONDS = 30.0
MAX_BACKOFF = 15.0
# How often the final part is sent because parts are missing.
FINAL_TRIES = 5


class Sender:
    """Sends a spool; `ended` waits that many seconds for the end of the output, and returns it."""

    def __init__(
        self,
        spool: Spool,
        transport: Transport,
        ended: Callable[[float], bool],
        *,
        flush_seconds: float,
        give_up_seconds: float,
    ) -> None:
        self._spool = spool
        self._transport = transport
        self._ended = ended
        self._flush_seconds = flush_seconds
        self._give_up_seconds = give_up_seconds
        self._give_up_at: float | None = None
        self._part_bytes = PART_BYTES
        self._number, self._offset = spool.confirmed
        # The digest of a log whose first bytes are no longer on disk cannot be known.
        self._digest: hashlib._Hash | None = hashlib.sha256()
        self._add_sent()

    def _add_sent(self) -> None:
        for start in range(0, self._offset, PART_BYTES):
            content = self._spool.read(start, min(start + PART_BYTES, self._offset))
            if content is None or self._digest is None:
                self._digest = None
                return
            self._digest.update(content)

    def run(self) -> None:
        """Send everything, until the final part is confirmed.

        Raises:
            ComponentError: it did not succeed in time.
            PermanentError: the server refuses.
        """
        due_at = None
        while True:
            has_ended = self._ended(0)
            waiting = self._spool.size - self._offset
            now = time.monotonic()
            due_at = now + self._flush_seconds if due_at is None or not waiting else due_at
            if waiting >= self._part_bytes or (waiting and (has_ended or now >= due_at)):
                self._send_next(min(waiting, self._part_bytes))
                due_at = None
            elif has_ended:
                break
            else:
                self._pause(POLL_SECONDS)
        self._finish()

    def _send_next(self, size: int) -> None:
        """Send the next part; its boundary may be fixed since an earlier run."""
        end = self._spool.end_of(self._number)
        if not end:
            end = self._offset + size
            self._retry(lambda: self._spool.fix(self._number, end))
        while True:
            content = self._spool.read(self._offset, end)
            if content is None:
                raise PermanentError("the spool was deleted while it was sent")
            try:
                self._send(self._number, content)
                break
            except PartTooLarge as error:
                if len(content) <= MIN_PART_BYTES:
                    raise PermanentError(str(error)) from None
                # Of two parts with one number, the one received last counts.
                self._part_bytes = max(len(content) // 2, MIN_PART_BYTES)
                end = self._offset + self._part_bytes
                self._spool.fix(self._number, end)
        if self._digest:
            self._digest.update(content)
        self._number, self._offset = self._number + 1, end
        self._spool.confirm(self._number, end)

    def _finish(self) -> None:
        """Send the final part, and again those that the server misses.

        The bytes that were cut count as bytes of the log, so that it is not complete.
        """
        total: Total = {}
        if self._digest:
            size = self._offset + self._spool.cut_bytes
            sha256 = self._digest.hexdigest()
            total = {"parts": self._number + 1, "bytes": size, "sha256": sha256}
        for _ in range(FINAL_TRIES):
            missing = self._send(self._number, b"", total).missing
            if not missing:
                return
            for number in missing:
                self._send_again(number)
        some = ", ".join(map(str, missing[:10]))
        raise ComponentError(f"the server still misses parts after {FINAL_TRIES} tries: {some}")

    def _send_again(self, number: int) -> None:
        if number < self._number:
            start, end = self._spool.end_of(number - 1), self._spool.end_of(number)
            content = self._spool.read(start, end)
            if content is not None:
                self._send(number, content)

    def _send(self, number: int, content: bytes, total: Total | None = None) -> Answer:
        answer = self._retry(
            lambda: self._transport.send(number, content, total, self._request_seconds())
        )
        if answer.flush_seconds is not None:
            self._flush_seconds = answer.flush_seconds
        return answer

    def _request_seconds(self) -> float:
        return max(min(REQUEST_SECONDS, self._seconds_left()), 1.0)

    def _seconds_left(self) -> float:
        """Seconds until giving up, counted from the end of the output."""
        if not self._ended(0):
            return REQUEST_SECONDS
        now = time.monotonic()
        if self._give_up_at is None:
            self._give_up_at = now + self._give_up_seconds
        return self._give_up_at - now

    def _retry(self, call: Callable[[], T]) -> T:
        backoff = Backoff(MAX_BACKOFF)
        while True:
            try:
                return call()
            except (ComponentError, OSError) as error:
                if self._seconds_left() <= 0:
                    raise ComponentError(str(error)) from error
            until = time.monotonic() + max(backoff.next(), self._transport.retry_after)
            while (left := until - time.monotonic()) > 0 and self._seconds_left() > 0:
                self._pause(min(left, POLL_SECONDS))

    def _pause(self, seconds: float) -> None:
        """Wait, at most until the output ends."""
        wait = time.sleep if self._ended(0) else self._ended
        self._transport.idle(lambda: wait(seconds))
