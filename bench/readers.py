"""Readers of `/stream` that record when each part arrives; run in a subprocess."""

import asyncio
import re
import time
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple, cast

from bench.logs import PART
from bench.servers import Server
from bench.subprocess_worker import Send

# The send time by the system clock, which all processes share, including Postgres.
STAMP = re.compile(rb'"number":(\d+),"content":"at=([0-9.]+) ')
AT_ONCE = 50


def stamped() -> bytes:
    """Part content with the current time."""
    return b"at=%.6f " % time.time() + PART


class Seen(NamedTuple):
    """Latencies by part, one per reader; and how many streams were closed early."""

    waits: dict[tuple[int, int], list[float]]
    closed_early: int

    def of(self, job_ids: Sequence[int]) -> list[float]:
        """All latencies of these jobs in seconds."""
        return [one for (job, _), waits in self.waits.items() if job in job_ids for one in waits]


class Reader(asyncio.Protocol):
    """Reads one stream completely at minimal cost.

    Does not parse chunked encoding: the server sends each event as one chunk.
    """

    def __init__(self, request: bytes) -> None:
        self._request = request
        self._got = b""
        self.opened, self.ended = asyncio.Event(), asyncio.Event()
        self.waits: list[tuple[int, float]] = []
        self.is_final = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Request the stream."""
        cast("asyncio.WriteTransport", transport).write(self._request)

    def data_received(self, data: bytes) -> None:
        """Record the parts of complete events."""
        now = time.time()
        events, end, self._got = (self._got + data).rpartition(b"\n\n")
        if not end:
            return
        self.waits += [(int(number), now - float(at)) for number, at in STAMP.findall(events)]
        if b"event: part\n" in events:
            self.opened.set()
        if b"event: final\n" in events:
            self.is_final = True
            self.ended.set()

    def connection_lost(self, _: Exception | None) -> None:
        """Mark the stream as ended."""
        self.opened.set()
        self.ended.set()


async def read_streams(send: Send, server: Server, job_ids: Sequence[int]) -> None:
    """Read one stream per job; sends True once all sent their history, then the `Seen`."""
    readers = [Reader(server.request(f"/logs/{job_id}/stream")) for job_id in job_ids]
    loop = asyncio.get_running_loop()
    for at in range(0, len(readers), AT_ONCE):
        some = readers[at : at + AT_ONCE]
        for reader in some:
            await loop.create_connection(partial(_same, reader), server.host, server.port)
        await asyncio.gather(*(reader.opened.wait() for reader in some))
    send(True)  # noqa: FBT003
    await asyncio.gather(*(reader.ended.wait() for reader in readers))
    waits = defaultdict(list)
    for job_id, reader in zip(job_ids, readers, strict=True):
        for number, wait in reader.waits:
            waits[job_id, number].append(wait)
    send(Seen(dict(waits), sum(not reader.is_final for reader in readers)))


def _same(reader: Reader) -> Reader:
    return reader
