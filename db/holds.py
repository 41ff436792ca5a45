"""Legal holds: logs whose text must not be deleted."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from db.connect import Connection
from db.reading import find
from logflume.domain import Log
from logflume.errors import UnderHold

# A new reason replaces the old one. Deleting text locks the log's row first, which the foreign key
# here waits for, and checks for holds afterwards.
PUT_ON = """
INSERT INTO log_holds (log_id, reason) VALUES ($1, $2)
ON CONFLICT (log_id) DO UPDATE SET reason = excluded.reason
"""
TAKE_OFF = "DELETE FROM log_holds WHERE log_id = $1 RETURNING log_id"
READ = "SELECT held_at, reason FROM log_holds WHERE log_id = $1"
HELD = """
SELECT l.job_id FROM log_holds h JOIN logs l ON l.id = h.log_id
WHERE l.id = ANY ($1) ORDER BY l.job_id
"""


class Hold(NamedTuple):
    """A legal hold."""

    held_at: datetime
    reason: str


async def put_on(connection: Connection, job_id: int, reason: str) -> Log:
    """Put a legal hold on a job's log; returns the log's row.

    Raises:
        UnknownLog: the job has no log.
    """
    log = await find(connection, job_id)
    await connection.execute(PUT_ON, log.id, reason)
    return await find(connection, job_id)


async def take_off(connection: Connection, job_id: int) -> bool:
    """Remove the legal hold from a job's log; False if there was none.

    Raises:
        UnknownLog: the job has no log.
    """
    log = await find(connection, job_id)
    return await connection.fetchval(TAKE_OFF, log.id) is not None


async def read(connection: Connection, job_id: int) -> Hold | None:
    """Read the legal hold of a job's log; None if there is none.

    Raises:
        UnknownLog: the job has no log.
    """
    log = await find(connection, job_id)
    row = await connection.fetchrow(READ, log.id)
    return Hold(**row) if row else None


async def check_holds(connection: Connection, log_ids: Sequence[int]) -> None:
    """Check that the text of these logs, whose rows are locked, may be deleted.

    Raises:
        UnderHold: one of them is under legal hold.
    """
    if held := [str(row["job_id"]) for row in await connection.fetch(HELD, log_ids)]:
        raise UnderHold(
            f"the log of job {', '.join(held)} is under legal hold: it cannot be written, "
            "cleared or removed"
        )
