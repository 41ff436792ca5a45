"""The maintenance switch: while it is on, parts are neither read nor written. It expires."""

from datetime import datetime, timedelta
from decimal import Decimal

from db.connect import Connection
from logflume.errors import UnderMaintenance

SWITCH_ON = """
INSERT INTO maintenance (until) VALUES (now() + $1)
ON CONFLICT (is_on) DO UPDATE SET until = excluded.until
RETURNING until
"""
SWITCH_OFF = "DELETE FROM maintenance"
UNTIL = "SELECT until FROM maintenance WHERE until > now()"
SECONDS_LEFT = "SELECT extract(epoch FROM until - now()) FROM maintenance WHERE until > now()"
JOIN_WRITERS = "SELECT join_writers()"
WAIT_FOR_WRITERS = "SELECT wait_for_writers()"


async def switch_on(connection: Connection, lifetime: timedelta) -> datetime:
    """Switch maintenance on for this long; returns its end once no transaction writes parts."""
    until: datetime = await connection.fetchval(SWITCH_ON, lifetime)
    # Writers that started before saw the switch off; those that start now see it on.
    await connection.execute(WAIT_FOR_WRITERS)
    return until


async def switch_off(connection: Connection) -> None:
    """Switch maintenance off."""
    await connection.execute(SWITCH_OFF)


async def until(connection: Connection) -> datetime | None:
    """Return the end of the maintenance, or None if it is off."""
    until: datetime | None = await connection.fetchval(UNTIL)
    return until


async def check(connection: Connection) -> None:
    """Check that parts may be read.

    Raises:
        UnderMaintenance: maintenance is on.
    """
    check_off(await connection.fetchval(SECONDS_LEFT))


def check_off(seconds_left: Decimal | None) -> None:
    """Check the seconds left that a statement returned, None if maintenance is off.

    Raises:
        UnderMaintenance: maintenance is on.
    """
    if seconds_left is not None:
        raise UnderMaintenance(float(seconds_left))


async def check_writing(connection: Connection) -> None:
    """Check that parts may be written; `switch_on` waits for this transaction from now on.

    Raises:
        UnderMaintenance: maintenance is on.
    """
    check_off(await connection.fetchval(JOIN_WRITERS))
