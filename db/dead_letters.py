"""Dead letters that RabbitMQ refuses because of their size."""

from collections.abc import AsyncIterator
from datetime import datetime
from typing import NamedTuple

import asyncpg

from db.connect import Connection

STORE = """
INSERT INTO large_dead_letters (reason, sender, published_at, body) VALUES ($1, $2, $3, $4)
"""
LIST = """
SELECT id, rejected_at, reason, sender, published_at, octet_length(body) AS bytes
FROM large_dead_letters ORDER BY id
"""
READ = "SELECT body FROM large_dead_letters WHERE id = $1"
DELETE = "DELETE FROM large_dead_letters WHERE id = $1"


class LargeDeadLetter(NamedTuple):
    """An invalid message and the reason, without the `bytes` of its body."""

    id: int
    rejected_at: datetime
    reason: str
    sender: str
    published_at: datetime | None
    bytes: int


async def store(  # noqa: PLR0913, PLR0917
    pool: asyncpg.Pool,
    reason: str,
    sender: str,
    published_at: datetime | None,
    body: bytes,
    seconds: float,
) -> None:
    """Store an invalid message, within that time."""
    # Postgres' text has no NUL.
    texts = [text.replace("\0", "") for text in (reason, sender)]
    async with pool.acquire(timeout=seconds) as connection:
        await connection.execute(STORE, *texts, published_at, body, timeout=seconds)


async def read_all(connection: Connection) -> AsyncIterator[LargeDeadLetter]:
    """Iterate over the messages that are stored now, oldest first."""
    for row in await connection.fetch(LIST):
        yield LargeDeadLetter(**row)


async def read_body(connection: Connection, id_: int) -> bytes | None:
    """The body of a message; None if it was deleted meanwhile."""
    body: bytes | None = await connection.fetchval(READ, id_)
    return body


async def delete(connection: Connection, id_: int) -> None:
    """Delete a message permanently."""
    await connection.execute(DELETE, id_)
