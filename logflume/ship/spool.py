"""The spool: a log's bytes on disk, from when they are written until they are confirmed.

A folder per job: `meta` (JSON), segments of equal size named by their index, `parts` (where each
part ends), `sent` (how many parts are confirmed, and how many bytes), `cut` (bytes that did not
fit), `source` (positions in a file that is followed), and `more`, which is renamed to `end` after
the last byte and to `done` once the final part is confirmed. All integers are 64 bits. Nothing is
synced: what a killed process wrote is safe, what a machine without power wrote is not.
"""

import fcntl
import json
import os
import shutil
import struct
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from logflume.errors import LogflumeError

SEGMENTS = 16
POSITION_BYTES = 32
LOCK_SECONDS = 2.0
_SENT = struct.Struct("<QQ")
_INTEGER = struct.Struct("<Q")
_BLOCK = bytes(4096)
# Written in advance, because nothing can be when the disk is full.
_NEW = {
    "parts": _BLOCK,
    "sent": bytes(16),
    "cut": bytes(8),
    "source": bytes(2 * POSITION_BYTES),
    "more": b"",
    "0": b"",
}


class SpoolError(LogflumeError):
    """The spool cannot be used; the text says why."""


class Meta(NamedTuple):
    """What is fixed when a spool is created; `owner` identifies the token."""

    uuid: str
    owner: str
    segment_bytes: int


class Spool:
    """The spool of one job, which one shipper at a time may use.

    Raises:
        SpoolError: it is unusable, damaged, or in use by another process.
    """

    def __init__(self, folder: Path, job_id: int, owner: str, max_bytes: int) -> None:
        self.folder = folder / str(job_id)
        self.max_bytes = max_bytes
        self._owner = owner
        self._open: dict[int, int] = {}
        try:
            self._lock = self._acquire()
            self._load()
        except (OSError, ValueError, TypeError) as error:
            raise SpoolError(
                f"the spool {self.folder} cannot be used: {error}; "
                "repair or delete it, or set LOGFLUME_SHIP__SPOOL_DIR"
            ) from None

    def _acquire(self) -> int:
        until = time.monotonic() + LOCK_SECONDS
        while True:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock = os.open(self.folder / "lock", os.O_CREAT | os.O_RDWR, 0o600)
            with suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(lock).st_nlink:  # not of a spool that was just deleted
                    return lock
            os.close(lock)
            # The sender of a shipper that was killed ends by itself.
            if time.monotonic() > until:
                raise OSError("another process ships the log of this job")
            time.sleep(0.02)

    def _load(self) -> None:
        if not (self.folder / "meta").exists() or (self.folder / "done").exists():
            self._create()
        self.meta = Meta(**json.loads((self.folder / "meta").read_text()))
        self._parts = self._file("parts")
        self._sent = self._file("sent")
        self._cut = self._file("cut")
        self._source = self._file("source")
        indices = self._indices()
        if indices != [*range(indices[0], indices[-1] + 1)]:
            raise ValueError("a segment is missing")
        self.base = indices[0] * self.meta.segment_bytes
        self._last = indices[-1]
        if max(self.confirmed[1], self.end_of(self.confirmed[0])) > self.size:
            raise ValueError("it is incomplete")
        if self.meta.owner != self._owner:
            self._change_owner()
        with suppress(FileNotFoundError):  # an earlier shipper did not deliver the end
            (self.folder / "end").rename(self.folder / "more")

    def _change_owner(self) -> None:
        """Send everything again: the server knows parts with another token as another attempt."""
        if self.base:
            raise ValueError("its first bytes were sent with another token and have been deleted")
        self.confirm(0, 0)
        self._write_meta(self.meta._replace(owner=self._owner))

    def _create(self) -> None:
        """Make an empty spool; `meta` is written last, because its presence is the commit."""
        (self.folder / "meta").unlink(missing_ok=True)
        for path in self.folder.iterdir():
            if path.name != "lock":
                path.unlink()
        for name, content in _NEW.items():
            (self.folder / name).write_bytes(content)
        self._write_meta(Meta(os.urandom(16).hex(), self._owner, self.max_bytes // SEGMENTS))

    def _write_meta(self, meta: Meta) -> None:
        draft = self.folder / "meta.new"
        draft.write_text(json.dumps(meta._asdict()))
        draft.rename(self.folder / "meta")

    def _file(self, name: str) -> int:
        return os.open(self.folder / name, os.O_RDWR)

    def _indices(self) -> list[int]:
        return sorted(int(path.name) for path in self.folder.iterdir() if path.name.isdecimal())

    def _segment(self, index: int, flags: int = 0) -> int:
        """The descriptor of a segment; only the last two used stay open."""
        if index not in self._open:
            path = self.folder / str(index)
            self._open[index] = os.open(path, os.O_RDWR | os.O_APPEND | flags, 0o600)
            for old in [*self._open][:-2]:
                os.close(self._open.pop(old))
        return self._open[index]

    @property
    def size(self) -> int:
        """How many bytes were ever appended."""
        segment = self.meta.segment_bytes
        while True:
            size = os.fstat(self._segment(self._last)).st_size
            if size < segment or not (self.folder / str(self._last + 1)).exists():
                return self._last * segment + size
            self._last += 1

    @property
    def confirmed(self) -> tuple[int, int]:
        """How many parts are confirmed, and where the last of them ends."""
        parts, end = _SENT.unpack(os.pread(self._sent, _SENT.size, 0))
        return parts, end

    def confirm(self, parts: int, end: int) -> None:
        """Record that the first `parts` parts, up to byte `end`, are confirmed."""
        os.pwrite(self._sent, _SENT.pack(parts, end), 0)

    def end_of(self, number: int) -> int:
        """Where a part ends, 0 if that is not fixed; before the first part, at 0."""
        if number < 0:
            return 0
        slot = os.pread(self._parts, _INTEGER.size, number * _INTEGER.size)
        return int(_INTEGER.unpack(slot)[0]) if slot else 0

    def fix(self, number: int, end: int) -> None:
        """Fix where a part ends, before it is first sent."""
        size = os.fstat(self._parts).st_size
        if (number + 1) * _INTEGER.size > size:
            os.pwrite(self._parts, _BLOCK, size)
        os.pwrite(self._parts, _INTEGER.pack(end), number * _INTEGER.size)

    def read(self, start: int, end: int) -> bytes | None:
        """The bytes in this range; None if they were released."""
        pieces = []
        while start < end:
            index, offset = divmod(start, self.meta.segment_bytes)
            try:
                piece = os.pread(self._segment(index), end - start, offset)
            except FileNotFoundError:
                return None
            pieces.append(piece)
            start += len(piece)
        return b"".join(pieces)

    def append(self, data: bytes | memoryview) -> None:
        """Append bytes, even beyond the limit.

        Raises:
            OSError: the disk is full or broken; some of the bytes may be appended.
        """
        size = self.size
        while data:
            index, offset = divmod(size, self.meta.segment_bytes)
            self._last = max(self._last, index)
            segment = self._segment(index, os.O_CREAT)
            count = os.write(segment, data[: self.meta.segment_bytes - offset])
            data = data[count:]
            size += count

    def has_room(self, count: int) -> bool:
        """Whether bytes fit; releases confirmed segments if necessary, oldest first."""
        size = self.size
        while size + count - self.base > self.max_bytes:
            if not self.release():
                return False
        return True

    def release(self) -> bool:
        """Delete the oldest segment, if all of it is confirmed."""
        end = self.base + self.meta.segment_bytes
        if end > min(self.confirmed[1], self.size - 1):
            return False
        (self.folder / str(self.base // self.meta.segment_bytes)).unlink()
        self.base = end
        return True

    @property
    def cut_bytes(self) -> int:
        """How many bytes were not stored; at least 1 as soon as the first is missing."""
        (count,) = _INTEGER.unpack(os.pread(self._cut, _INTEGER.size, 0))
        return int(count)

    def record_cut(self, count: int) -> None:
        """Record how many bytes were not stored."""
        os.pwrite(self._cut, _INTEGER.pack(count), 0)

    def read_position(self, slot: int) -> bytes:
        """One of the two positions in the file that is followed."""
        return os.pread(self._source, POSITION_BYTES, slot * POSITION_BYTES)

    def write_position(self, slot: int, position: bytes) -> None:
        """Record a position."""
        os.pwrite(self._source, position, slot * POSITION_BYTES)

    @property
    def has_ended(self) -> bool:
        """Whether there are no more bytes."""
        return not (self.folder / "more").exists()

    def end(self) -> None:
        """Record that there are no more bytes."""
        (self.folder / "more").rename(self.folder / "end")

    def delivered(self) -> None:
        """Record that the final part is confirmed."""
        (self.folder / "end").rename(self.folder / "done")

    def close(self, *, delete: bool) -> None:
        """Close all files and give up the lock."""
        for fd in (*self._open.values(), self._parts, self._sent, self._cut, self._source):
            os.close(fd)
        if delete:
            shutil.rmtree(self.folder)
        os.close(self._lock)
