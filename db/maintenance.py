"""The maintenance switch: while it is on, nobody reads or writes parts. It expires by itself."""

from datetime import datetime, timedelta
from decimal import Decimal

from db.connect import Connection
from logflume.errors import UnderMaintenance

# Shared by everyone who writes parts (`join_writers`), so that switching on can wait for them.
LOCK_KEY = 7_001_001

SWITCH_ON = """
INSERT INTO maintenance (until) VALUES (now() + $1)
ON CONFLICT (is_on) DO UPDATE SET until = excluded.until
RETURNING until
"""
SWITCH_OFF = "DELETE FROM maintenance"
UNTIL = "SELECT until FROM maintenance WHERE until > now()"
SECONDS_LEFT = "SELECT extract(epoch FROM until - now()) FROM maintenance WHERE until > now()"
JOIN_WRITERS = "SELECT join_writers()"
WAIT_FOR_WRITERS = f"SELECT pg_advisory_xact_lock({LOCK_KEY})"


async def switch_on(connection: Connection, lifetime: timedelta) -> datetime:
    """Switch on, for so long from now; returns once nobody writes parts any more, with the end."""
    until: datetime = await connection.fetchval(SWITCH_ON, lifetime)
    # Those who began before saw the switch off; who begins now sees it on.
    await connection.execute(WAIT_FOR_WRITERS)
    return until


async def switch_off(connection: Connection) -> None:
    """Switch off."""
    await connection.execute(SWITCH_OFF)


async def until(connection: Connection) -> datetime | None:
    """When it will be over; None where the switch is off."""
    found: datetime | None = await connection.fetchval(UNTIL)
    return found


async def check(connection: Connection) -> None:
    """Find out whether parts may be read.

    Raises:
        UnderMaintenance: the switch is on.
    """
    check_off(await connection.fetchval(SECONDS_LEFT))


def check_off(seconds_left: Decimal | None) -> None:
    """Take what a statement told of the switch beside other things (`SECONDS_LEFT`).

    Raises:
        UnderMaintenance: it is on.
    """
    if seconds_left is not None:
        raise UnderMaintenance(float(seconds_left))


async def check_writing(connection: Connection) -> None:
    """Find out whether parts may be written, and be waited for until this transaction ends.

    Raises:
        UnderMaintenance: the switch is on.
    """
    check_off(await connection.fetchval(JOIN_WRITERS))
