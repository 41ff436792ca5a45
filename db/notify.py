"""Marks of who watches a log, so that parts are announced only where somebody listens."""

from collections.abc import Callable, Collection, Mapping

import asyncpg
import msgspec

from db.connect import Connection, connect_directly
from logflume.settings.groups import DatabaseSettings

# The channel of NOTIFY; its payload is that of `Announced`.
CHANNEL = "log_parts"
OCCUPIED_SECONDS = 6 * 3600

# In one order everywhere, so that nobody waits in a circle.
MARK = """
INSERT INTO watched_logs AS w (job_id, way, until)
SELECT job_id, $2, now() + make_interval(secs => $3) FROM unnest($1::bigint[]) job_id
ORDER BY job_id
ON CONFLICT (job_id, way) DO UPDATE SET until = greatest(w.until, excluded.until)
"""
VACATE = "DELETE FROM watched_logs WHERE job_id = $1 AND way = 'pusher'"
EXPIRE = "DELETE FROM watched_logs WHERE until < now() - interval '1 minute'"
ANNOUNCE = "SELECT * FROM announce_parts($1, $2)"


class Announced(msgspec.Struct, frozen=True):
    """A transaction brought parts of a job, of which `lowest` is the lowest number."""

    job_id: int
    lowest: int
    transaction: int


async def watch(connection: Connection, job_ids: Collection[int], seconds: float) -> None:
    """Mark that somebody reads these logs' streams for the next `seconds`."""
    await connection.execute(MARK, [*job_ids], "stream", seconds)


async def occupy(connection: Connection, job_id: int) -> None:
    """Mark that the Pusher channel of a job is occupied, for 6 hours (the contract's time)."""
    await connection.execute(MARK, [job_id], "pusher", OCCUPIED_SECONDS)


async def vacate(connection: Connection, job_id: int) -> None:
    """Take that mark away."""
    await connection.execute(VACATE, job_id)


async def expire(connection: Connection) -> None:
    """Delete marks that nobody renewed."""
    await connection.execute(EXPIRE)


async def announce(connection: Connection, lowest: Mapping[int, int]) -> set[int]:
    """Wake the streams of these jobs when this transaction commits.

    `lowest` is, by job, the lowest number of the parts that came. Returns the jobs whose Pusher
    channel is occupied.
    """
    rows = await connection.fetch(ANNOUNCE, list(lowest), list(lowest.values()))
    return {row[0] for row in rows}


async def listen(
    settings: DatabaseSettings, heard: Callable[[Announced], None], lost: Callable[[], None]
) -> asyncpg.Connection:
    """Open a connection that hears announcements.

    `lost` is called when the connection ends; what is announced from then on is not heard.

    Raises:
        ComponentError: Postgres is out of reach, refuses us, or is a pooler.
    """
    connection = await connect_directly(settings, "logflume listener")

    def tell(_connection: object, _pid: int, _channel: str, payload: object) -> None:
        heard(Announced(*map(int, str(payload).split())))

    connection.add_termination_listener(lambda _: lost())
    await connection.add_listener(CHANNEL, tell)
    return connection
