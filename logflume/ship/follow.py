"""Follows a growing file, across rotation, truncation and the end of this process."""

import os
import signal
import struct
import time
from pathlib import Path

from logflume.ship.shipment import Shipment, say

READ_BYTES = 65536
POLL_SECONDS = 0.2
# The size of the spool after an append, and which byte of which file comes next.
_POSITION = struct.Struct("<QQQQ")


class Follower:
    """Ships a file until SIGTERM or SIGINT.

    Where to continue is recorded before each append, in one of two slots: if the append is
    incomplete, the slot before it says from where to read those bytes again.
    """

    def __init__(self, path: Path, shipment: Shipment) -> None:
        self._path = path
        self._shipment = shipment
        self._spool = shipment.spool
        self._slot = 0
        self._skip = 0
        self._stops = False
        self._file = -1
        self._offset = 0

    def run(self) -> None:
        """Follow the file until a signal ends it; then read the rest of it."""
        for one in (signal.SIGINT, signal.SIGTERM):
            signal.signal(one, self._stop)
        try:
            self._resume()
            self._follow()
        except OSError as error:
            self._shipment.fail(f"cannot follow {self._path}: {error.strerror}")

    def _follow(self) -> None:
        while True:
            is_last = self._stops
            if not self._copy() and not self._reopen():
                if is_last:
                    return
                time.sleep(POLL_SECONDS)

    def _stop(self, *_: object) -> None:
        self._stops = True

    def _resume(self) -> None:
        """Continue after the last byte in the spool; without one, at the start of the file."""
        slots = [_POSITION.unpack(self._spool.read_position(index)) for index in range(2)]
        size = self._spool.size
        known = [slot for slot in slots if slot[2] and slot[0] <= size]
        if not known:
            return
        end, device, inode, self._offset = max(known)
        self._slot = 1 - slots.index(max(known))
        self._skip = size - end
        for path in (self._path, *sorted(self._path.parent.iterdir())):
            try:
                file = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
            except OSError:
                continue
            stat = os.fstat(file)
            if (stat.st_dev, stat.st_ino) == (device, inode):
                self._file = file
                return
            os.close(file)
        self._offset = self._skip = 0
        say(f"{self._path}: the file that was followed is gone; its last lines may be missing")

    def _copy(self) -> bool:
        """Ship what there is to read, up to `READ_BYTES`; False if there is nothing."""
        if self._file < 0:
            return False
        if os.fstat(self._file).st_size < self._offset:
            self._offset = 0  # truncated
        data = os.pread(self._file, READ_BYTES, self._offset)
        self._offset += len(data)
        self._ship(self._shipment.masker.feed(data))
        return bool(data)

    def _ship(self, masked: bytes) -> None:
        if content := masked[self._skip :]:
            self._record(self._spool.size + len(content))
            self._shipment.append_all(content, lambda: self._stops)
        self._skip = max(self._skip - len(masked), 0)

    def _record(self, size: int) -> None:
        stat = os.fstat(self._file)
        offset = self._offset - self._shipment.masker.held_bytes
        record = _POSITION.pack(size, stat.st_dev, stat.st_ino, offset)
        self._spool.write_position(self._slot, record)
        self._slot = 1 - self._slot

    def _reopen(self) -> bool:
        """Open the file, if it is another one by now; the old one was read completely."""
        try:
            stat = self._path.stat()
        except OSError:
            return False
        if self._file >= 0:
            old = os.fstat(self._file)
            if (old.st_dev, old.st_ino) == (stat.st_dev, stat.st_ino):
                return False
            if self._copy():
                return True
            self._ship(self._shipment.masker.end())
            os.close(self._file)
        self._file = os.open(self._path, os.O_RDONLY)
        self._offset = 0
        return True
