"""Records which logs have live readers, and notifies their streams of new parts."""

from collections.abc import Callable, Collection, Mapping

import asyncpg
import msgspec

from db.connect import Connection, connect_directly, terminated_on_error
from logflume.settings.servers import DatabaseSettings

# The channel of NOTIFY; its payload is that of `Announced`.
CHANNEL = "log_parts"
OCCUPIED_SECONDS = 6 * 3600

# Always in the order of job ids, so that no deadlock is possible.
MARK = """
INSERT INTO watched_logs AS w (job_id, way, until)
SELECT job_id, $2, now() + make_interval(secs => $3) FROM unnest($1::bigint[]) job_id
ORDER BY job_id
ON CONFLICT (job_id, way) DO UPDATE SET until = greatest(w.until, excluded.until)
"""
VACATE = "DELETE FROM watched_logs WHERE job_id = $1 AND way = 'pusher'"
EXPIRE = "DELETE FROM watched_logs WHERE until < now() - interval '1 minute'"
WATCHED = "SELECT DISTINCT job_id FROM watched_logs WHERE until > now()"
ANNOUNCE = "SELECT job_id FROM announce_parts($1, $2) job_id"


class Announced(msgspec.Struct, frozen=True):
    """A transaction stored parts of a job; `lowest` is their lowest number."""

    job_id: int
    lowest: int
    transaction: int


async def watch(connection: Connection, job_ids: Collection[int], seconds: float) -> None:
    """Mark these logs as watched by streams for the next `seconds`."""
    await connection.execute(MARK, [*job_ids], "stream", seconds)


async def occupy(connection: Connection, job_id: int) -> None:
    """Mark the Pusher channel of a job as occupied, for 6 hours (from the contract)."""
    await connection.execute(MARK, [job_id], "pusher", OCCUPIED_SECONDS)


async def vacate(connection: Connection, job_id: int) -> None:
    """Mark the Pusher channel of a job as vacated."""
    await connection.execute(VACATE, job_id)


async def expire(connection: Connection) -> None:
    """Delete marks that were not renewed."""
    await connection.execute(EXPIRE)


async def watched_jobs(connection: Connection) -> frozenset[int]:
    """Return the jobs whose logs have live readers."""
    return frozenset(row["job_id"] for row in await connection.fetch(WATCHED))


async def announce(connection: Connection, lowest: Mapping[int, int]) -> set[int]:
    """Notify the streams of these jobs when this transaction commits.

    `lowest` maps each job to its lowest new number. Returns the jobs whose Pusher channel is
    occupied.
    """
    rows = await connection.fetch(ANNOUNCE, list(lowest), list(lowest.values()))
    return {row["job_id"] for row in rows}


async def listen(
    settings: DatabaseSettings, on_parts: Callable[[Announced], None], on_lost: Callable[[], None]
) -> asyncpg.Connection:
    """Open a connection that receives announcements.

    `on_lost` is called when the connection ends; later announcements are not received.

    Raises:
        ComponentError: Postgres cannot be reached, rejects the login, or is a pooler.
    """
    connection = await connect_directly(settings, "logflume listener")

    def receive(_connection: object, _pid: int, _channel: str, payload: object) -> None:
        on_parts(Announced(*map(int, str(payload).split())))

    connection.add_termination_listener(lambda _: on_lost())
    with terminated_on_error(connection):
        await connection.add_listener(CHANNEL, receive)
    return connection
