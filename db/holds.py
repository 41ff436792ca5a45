"""Legal holds: marks of logs whose text nobody may delete."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from db.connect import Connection
from db.reading import find
from logflume.domain import Log
from logflume.errors import UnderHold

# One that is held stays so; a new reason takes the place of the old one. Who deletes text holds the
# log's row until it is gone, which the foreign key waits for, and looks for holds after taking it.
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
    """Since when a log is held, and why."""

    held_at: datetime
    reason: str


async def put_on(connection: Connection, job_id: int, reason: str) -> Log:
    """Put a hold on a job's log; returns its row as it is from then on.

    Raises:
        UnknownLog: there is no such log.
    """
    log = await find(connection, job_id)
    await connection.execute(PUT_ON, log.id, reason)
    return await find(connection, job_id)


async def take_off(connection: Connection, job_id: int) -> bool:
    """Take the hold off a job's log; False where there was none.

    Raises:
        UnknownLog: there is no such log.
    """
    log = await find(connection, job_id)
    return await connection.fetchval(TAKE_OFF, log.id) is not None


async def read(connection: Connection, job_id: int) -> Hold | None:
    """Read the hold of a job's log; None where there is none.

    Raises:
        UnknownLog: there is no such log.
    """
    log = await find(connection, job_id)
    row = await connection.fetchrow(READ, log.id)
    return Hold(**row) if row else None


async def check_holds(connection: Connection, log_ids: Sequence[int]) -> None:
    """Find out whether the text of these logs, which are locked, may be deleted.

    Raises:
        UnderHold: one of them is under legal hold.
    """
    if held := [str(row["job_id"]) for row in await connection.fetch(HELD, log_ids)]:
        raise UnderHold(
            f"under legal hold: the log of job {', '.join(held)}; what it says must stay, so it "
            "cannot be written, cleared or removed"
        )
