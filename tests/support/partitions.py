"""Partitions of past days, and parts that were received then."""

from datetime import UTC, datetime, timedelta
from typing import Any

from asyncpg import Connection
from msgspec.structs import replace

from db import partitions, reading
from logflume.domain import Part
from tests.support.parts import part

DAY, HOUR = timedelta(days=1), timedelta(hours=1)
RETENTION = 2 * DAY
LOCK_SECONDS = 0.1


def ago(days: float, microseconds: int = 0) -> datetime:
    """Noon, so many days ago."""
    noon = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0)
    return noon - days * DAY + timedelta(microseconds=microseconds)


def old_part(job_id: int, number: int, text: bytes = b"", *, at: datetime, **fields: Any) -> Part:
    """A part received at that time."""
    return replace(part(job_id, number, text, **{"published_at": at, **fields}), received_at=at)


async def make_past(connection: Connection, days: int = 10) -> None:
    """Create the past days' partitions that maintenance would have created."""
    begins = [ago(day).replace(hour=0) for day in range(1, days + 1)]
    await connection.execute(
        "SELECT partman.create_partition_time('public.log_parts', $1::timestamptz[])", begins
    )


async def names(connection: Connection) -> list[str]:
    return [one.name for one in (await partitions.partitions(connection)).ranges]


async def name_of(connection: Connection, at: datetime) -> str:
    one = (await partitions.partitions(connection)).holding(at)
    assert one
    return one.name


async def drop(connection: Connection, name: str) -> bool:
    return await partitions.drop(connection, name, RETENTION, LOCK_SECONDS)


async def facts(connection: Connection, job_id: int) -> tuple[Any, ...]:
    """Read everything that a rescue must not change."""
    log_id = await connection.fetchval("SELECT id FROM logs WHERE job_id = $1", job_id)
    order = await connection.fetch(
        "SELECT id, attempt_id, number, final, content FROM log_parts WHERE log_id = $1"
        " ORDER BY id",
        log_id,
    )
    attempts = await reading.attempts(connection, log_id)
    listed = [
        await connection.fetch(
            "SELECT id, attempt_id, number, final, content FROM content_parts($1, $2)"
            " ORDER BY number, id",
            log_id,
            one.id,
        )
        for one in attempts
    ]
    complete = await reading.has_all_parts(connection, log_id)
    return attempts, listed, [tuple(row) for row in order], complete
