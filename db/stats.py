"""What operators watch of the database as a whole, each at a cost that does not grow with it."""

import msgspec

from db.connect import Connection
from db.partitions import partitions

# Ids rise with time but for jobs that are run again: a row that is old may hold a young attempt.
LOOKED_AT = 100
OLDEST_UNARCHIVED = f"""
SELECT coalesce(max(extract(epoch FROM now() - began_at)), 0)::float8 FROM (
    SELECT coalesce(
        (SELECT max(began_at) FROM log_attempts WHERE log_id = l.id AND began_at < 'infinity'),
        l.updated_at) AS began_at
    FROM logs l
    WHERE (NOT archive_verified OR late_parts) AND NOT empty
    ORDER BY id LIMIT {LOOKED_AT}
) oldest
"""  # noqa: S608 - a constant
IS_UNDER_MAINTENANCE = "SELECT EXISTS (SELECT FROM maintenance WHERE until > now())"
MOST_COUNTED = 10_000
COUNT_PARTS = "SELECT count(*) FROM (SELECT FROM {name} LIMIT {most}) p"


class Figures(msgspec.Struct, frozen=True):
    """The database as it is now.

    `oldest_unarchived_seconds`: since the job of the oldest log began that is not archived and
    verified, 0 where all are. `partitions_ahead`: that begin later than now.
    `default_partition_parts`: parts outside of every other partition, counted up to 10,000; not
    counted under maintenance.
    """

    oldest_unarchived_seconds: float
    is_under_maintenance: bool
    partitions_ahead: int
    default_partition_parts: int


async def figures(connection: Connection) -> Figures:
    """Look at all of it; what could wait for a lock an operator holds is left out."""
    is_under_maintenance = await connection.fetchval(IS_UNDER_MAINTENANCE)
    found = await partitions(connection)
    strays = 0
    if not is_under_maintenance:
        strays = await connection.fetchval(
            COUNT_PARTS.format(name=found.default, most=MOST_COUNTED)
        )
    return Figures(
        oldest_unarchived_seconds=await connection.fetchval(OLDEST_UNARCHIVED),
        is_under_maintenance=is_under_maintenance,
        partitions_ahead=sum(one.begin > found.now for one in found.ranges),
        default_partition_parts=strays,
    )
