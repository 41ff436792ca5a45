"""A minimal CI job runner: splits a job's output into parts and publishes them.

Like real runners it does not use publisher confirms, and it splits at byte offsets, even inside
characters.
"""

import asyncio
import gzip
import hashlib
import io
import logging
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO
from uuid import uuid4

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractExchange
from aio_pika.exceptions import CONNECTION_EXCEPTIONS

from logflume import amqp, contract
from logflume.errors import ComponentError, LogflumeError

PART_BYTES = 1653
FLUSH_SECONDS = 0.5


@dataclass(frozen=True)
class Played:
    """A published job: size in bytes, SHA-256 in hex, number of parts including the final one."""

    job_id: int
    bytes: int
    parts: int
    sha256: str
    finished_at: datetime
    """When the final part was sent, in UTC."""


async def connect(url: str) -> AbstractConnection:
    """Connect to the broker.

    Raises:
        ComponentError: it is unreachable or refuses the connection.
    """
    # It would log the same error again.
    logging.getLogger("aiormq.connection").setLevel(logging.CRITICAL)
    try:
        return await aio_pika.connect(url, timeout=10)
    except (*CONNECTION_EXCEPTIONS, TimeoutError, ValueError) as error:
        raise ComponentError(f"{amqp.describe(url)}: {amqp.describe_error(error)}") from error


def new_job_ids(count: int) -> range:
    """Unused job ids, starting at the microseconds since the epoch."""
    first = time.time_ns() // 1000
    return range(first, first + count)


def open_log(path: Path) -> BinaryIO:
    """Open a log file for `play`; a `.gz` file is decompressed while it is read.

    Raises:
        LogflumeError: it cannot be opened.
    """
    try:
        # A GzipFile has the interface of a BinaryIO.
        return gzip.open(path) if path.suffix == ".gz" else path.open("rb")  # type: ignore[return-value]
    except OSError as error:
        raise LogflumeError(f"cannot read {path}: {error.strerror}") from error


async def play(  # noqa: PLR0913
    channel: AbstractChannel,
    job_id: int,
    output: BinaryIO | bytes,
    *,
    uuid: str | None = None,
    rate: float | None = None,
    meta: dict[str, Any] | None = None,
    on_part: Callable[[int], None] = lambda _: None,
) -> Played:
    """Publish a job's output and its final part.

    `rate` is in bytes per second, flushed every half second; None: as fast as possible. `channel`
    must not use publisher confirms. `on_part` gets the size of each part in bytes.

    Raises:
        ComponentError: the connection to the broker was lost.
        LogflumeError: the output cannot be read.
    """
    source = io.BytesIO(output) if isinstance(output, bytes) else output
    try:
        exchange = await amqp.declare(channel)
        run = _Run(exchange, job_id, uuid or str(uuid4()), meta or _meta(), on_part)
        return await run.play(source, rate)
    except CONNECTION_EXCEPTIONS as error:
        raise ComponentError(
            f"lost the connection to RabbitMQ: {str(error) or type(error).__name__}; publish again"
        ) from error


def _meta() -> dict[str, str]:
    queued_at = datetime.now(UTC).isoformat(timespec="seconds")
    return {"queued_at": queued_at, "repo": "a/b", "queue": "builds.local", "infra": "local"}


@dataclass
class _Run:
    """One run of a job: numbers its parts and counts what was sent."""

    exchange: AbstractExchange
    job_id: int
    uuid: str
    meta: dict[str, Any]
    on_part: Callable[[int], None]
    number: int = 0
    size: int = 0

    def __post_init__(self) -> None:
        self.sha256 = hashlib.sha256()

    async def play(self, source: BinaryIO, rate: float | None) -> Played:
        began, allowed = time.monotonic(), 0.0
        while chunk := self._read(source, PART_BYTES):
            if rate is not None and self.size + len(chunk) > allowed:
                allowed += max(rate * FLUSH_SECONDS, len(chunk))
                await asyncio.sleep(began + allowed / rate - time.monotonic())
            await self._publish(chunk)
        await self._publish(b"", final=True)
        sha256, now = self.sha256.hexdigest(), datetime.now(UTC)
        return Played(self.job_id, self.size, self.number, sha256, now)

    def _read(self, source: BinaryIO, size: int) -> bytes:
        try:
            return source.read(size)
        except (OSError, EOFError, zlib.error) as error:
            raise LogflumeError(f"cannot read the output of job {self.job_id}: {error}") from error

    async def _publish(self, chunk: bytes, *, final: bool = False) -> None:
        part = contract.PartMessage.of(
            self.job_id,
            self.number,
            chunk,
            uuid=self.uuid,
            final=final,
            meta=self.meta if self.number == 0 else None,
        )
        message = amqp.part_message(part)
        await self.exchange.publish(message, contract.ROUTING_KEY, mandatory=False)
        self.sha256.update(chunk)
        self.number += 1
        self.size += len(chunk)
        self.on_part(len(chunk))
