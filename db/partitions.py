"""The partitions of `log_parts`: made ahead, emptied of what must stay, dropped.

pg_partman makes them. It never drops any: it does not ask which logs are archived. Every lock that
others could wait behind is asked for with a time limit, and whoever calls tries again.
"""

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Literal, NamedTuple

from db.connect import Connection
from logflume.errors import PartitionError

Interval = Literal["daily", "hourly"]
STEPS: dict[Interval, timedelta] = {"daily": timedelta(days=1), "hourly": timedelta(hours=1)}
# A part is committed long before this is over since it was received.
COMMITTED_AFTER = timedelta(minutes=10)

LIST = """
SELECT c.oid::regclass::text AS name,
    substring(b.bound FROM 'FROM \\(''([^'']+)''\\)')::timestamptz AS begin,
    substring(b.bound FROM 'TO \\(''([^'']+)''\\)')::timestamptz AS end
FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid,
    LATERAL (SELECT pg_get_expr(c.relpartbound, c.oid) AS bound) b
WHERE i.inhparent = 'log_parts'::regclass
ORDER BY begin
"""
NOW = "SELECT now()"
LIMIT_WAITS = "SELECT set_config('lock_timeout', $1, true)"

# What only the schema's owner may do, `db/deploy/roles.sql` does for the worker.
CONFIGURE = "SELECT configure_partitions($1, $2)"
MAKE = "SELECT make_partition($1)"
# What making a partition locks. Asked for here, because pg_partman would tell of a lock that is
# not to be had by an error without a code.
LOCK_TO_MAKE = """
LOCK TABLE ONLY log_parts IN SHARE UPDATE EXCLUSIVE MODE;
LOCK TABLE {default} IN ACCESS EXCLUSIVE MODE
"""
HOLDS_PARTS = "SELECT EXISTS (SELECT FROM {name} WHERE created_at >= $1 AND created_at < $2)"

# From one log to the next by the index, however many parts each has.
HELD_LOGS = """
WITH RECURSIVE held (log_id) AS (
    (SELECT p.log_id FROM {name} p ORDER BY p.log_id LIMIT 1)
    UNION ALL
    SELECT (SELECT p.log_id FROM {name} p WHERE p.log_id > h.log_id ORDER BY p.log_id LIMIT 1)
    FROM held h WHERE h.log_id IS NOT NULL
)
SELECT log_id FROM held WHERE log_id IS NOT NULL ORDER BY log_id
"""
# A log's parts may go once it is archived, read back, let go of by its row, and nothing came since.
# Under legal hold not those of runs that it went through: no archive need have them.
UNFINISHED = """
SELECT i.id FROM unnest($1::bigint[]) i (id) LEFT JOIN logs l ON l.id = i.id
WHERE (l.archive_verified AND l.purged_at IS NOT NULL AND NOT l.late_parts) IS NOT TRUE
    OR i.id IN (SELECT log_id FROM log_holds) AND EXISTS (
        SELECT FROM log_parts p WHERE p.log_id = i.id AND p.number BETWEEN 0 AND 2147483646
            AND p.attempt_id IS DISTINCT FROM l.content_attempt_id
    )
ORDER BY i.id
"""
# Parts of clocks that are wrong by days; or of today, where today has no partition: they stay.
STRAYS = """
SELECT log_id, bool_or(created_at > now()) AS ahead FROM {name}
WHERE created_at < $1 OR created_at > now()
GROUP BY log_id ORDER BY log_id
"""

LOCK_LOG = "SELECT FROM logs WHERE id = $1 FOR NO KEY UPDATE"
# The parts from the oldest on move to the begin of the partition, a microsecond apart, as many as
# it takes to lie before the rest. So their order stays, among them and to all others, and with it
# which duplicate counts. `parts_since` goes with the part it was taken from.
RESCUE = """
WITH target AS (
    SELECT $2::timestamptz AS begin, CASE WHEN $3 THEN 'infinity'
        ELSE $2::timestamptz + count(*) * interval '1 microsecond' END AS before
    FROM log_parts WHERE log_id = $1
), places AS MATERIALIZED (
    SELECT p.attempt_id, p.number, p.created_at, p.id, t.begin + interval '1 microsecond'
        * (row_number() OVER (ORDER BY p.created_at, p.id) - 1) AS moved_to
    FROM log_parts p, target t
    WHERE p.log_id = $1 AND p.created_at < t.before
), noted AS (
    UPDATE logs l SET parts_since = f.moved_to
    FROM (SELECT created_at, min(moved_to) AS moved_to FROM places GROUP BY created_at) f
    WHERE l.id = $1 AND f.created_at = l.parts_since
), moved AS (
    UPDATE log_parts p SET created_at = m.moved_to
    FROM places m
    WHERE p.log_id = $1 AND p.attempt_id = m.attempt_id AND p.number = m.number
        AND p.created_at = m.created_at AND p.id = m.id
    RETURNING 1
)
SELECT count(*) FROM moved
"""

# Keeps new parts out of a partition that is to go, and nobody from reading.
LOCK_PARTITION = "LOCK TABLE {name} IN SHARE MODE"
LOCK_PARENT = "LOCK TABLE ONLY log_parts IN ACCESS EXCLUSIVE MODE"
# Writers wait by now, so this does not. Dropping changes what the default partition may hold.
LOCK_TO_DROP = "LOCK TABLE {names} IN ACCESS EXCLUSIVE MODE NOWAIT"
DROP = "SELECT drop_partition($1)"
ANALYZE = "SELECT analyze_parts()"


class Partition(NamedTuple):
    """A partition with the times its parts were received, from `begin` until before `end`."""

    name: str
    begin: datetime
    end: datetime


class Partitions(NamedTuple):
    """All partitions in order, the name of the default one, and the time in Postgres."""

    ranges: list[Partition]
    default: str
    now: datetime

    def holding(self, moment: datetime) -> Partition | None:
        """The partition for parts received at a moment."""
        return next((one for one in self.ranges if one.begin <= moment < one.end), None)

    @property
    def refuge(self) -> Partition:
        """The newest partition that no part can still come to the begin of.

        Raises:
            PartitionError: there is none.
        """
        found = self.holding(self.now - COMMITTED_AFTER)
        if found is None:
            raise PartitionError(
                "the present has no partition: its parts are in the default one; they are "
                "moved once the next day (or hour) has begun in a partition of its own"
            )
        return found


async def partitions(connection: Connection) -> Partitions:
    """List the partitions of `log_parts`."""
    rows = await connection.fetch(LIST)
    default = next(row["name"] for row in rows if row["begin"] is None)
    ranges = [Partition(*row) for row in rows if row["begin"] is not None]
    return Partitions(ranges, default, await connection.fetchval(NOW))


async def expired(connection: Connection, retention: timedelta) -> list[str]:
    """List the partitions whose parts are all older than the retention, oldest first."""
    found = await partitions(connection)
    return [one.name for one in found.ranges if one.end <= found.now - retention]


async def make_ahead(
    connection: Connection,
    interval: Interval,
    premake: int,
    lock_timeout: float,
    made: Callable[[datetime], object],
) -> list[datetime]:
    """Make the partition of the present and `premake` ones after it, where they are missing.

    `made` hears the begin of each. Returns the begins of those that could not be made because parts
    for them lie in the default partition.

    Raises:
        asyncpg.LockNotAvailableError: a lock was not to be had within `lock_timeout` seconds;
            what was made until then stays.
    """
    found = await partitions(connection)
    blocked: list[datetime] = []
    for begin, end in missing(found, STEPS[interval], premake):
        async with connection.transaction():
            if await connection.fetchval(HOLDS_PARTS.format(name=found.default), begin, end):
                blocked.append(begin)
                continue
            await connection.fetchval(LIMIT_WAITS, f"{lock_timeout:.3f}s")
            await connection.execute(LOCK_TO_MAKE.format(default=found.default))
            await connection.execute(CONFIGURE, end - begin, premake)
            if not await connection.fetchval(MAKE, begin):
                raise PartitionError(
                    f"a table that is no partition has the name of the one that begins {begin}: "
                    "rename it"
                )
        made(begin)
    await connection.execute(CONFIGURE, STEPS[interval], premake)
    return blocked


def missing(
    found: Partitions, step: timedelta, premake: int
) -> Iterator[tuple[datetime, datetime]]:
    """Tell the begin and end of each partition there should be and is not.

    After a change of the interval the partitions that are there stay, and what lies between them
    and the next full day or hour is one shorter partition.
    """
    midnight = found.now.replace(hour=0, minute=0, second=0, microsecond=0)
    until = midnight + ((found.now - midnight) // step + premake + 1) * step
    # Parts of a moment ago may still be on their way.
    at = midnight + (found.now - COMMITTED_AFTER - midnight) // step * step
    while at < until:
        there = found.holding(at)
        if there is not None:
            at = there.end
            continue
        boundary = midnight + ((at - midnight) // step + 1) * step
        end = min([boundary, *(one.begin for one in found.ranges if at < one.begin)])
        yield at, end
        at = end


async def unfinished(connection: Connection, name: str) -> list[int]:
    """List the logs with parts in a partition that must not be dropped, by their own ids."""
    return await _unfinished(connection, await _held(connection, name))


async def _held(connection: Connection, name: str) -> list[int]:
    return [row["log_id"] for row in await connection.fetch(HELD_LOGS.format(name=name))]


async def _unfinished(connection: Connection, log_ids: Sequence[int]) -> list[int]:
    return [row["id"] for row in await connection.fetch(UNFINISHED, log_ids)]


async def strays(connection: Connection) -> list[tuple[int, bool]]:
    """List the logs with parts in the default partition, and whether any has a time to come."""
    found = await partitions(connection)
    rows = await connection.fetch(STRAYS.format(name=found.default), found.refuge.begin)
    return [(row["log_id"], row["ahead"]) for row in rows]


async def rescue(connection: Connection, log_id: int, *, whole: bool = False) -> int:
    """Move a log's old parts to the newest partition whose begin is past; returns how many.

    Neither content, nor which duplicate counts, nor whether the parts are complete changes.
    `whole` moves the newest parts too, whatever their time.

    Raises:
        PartitionError: there is no such partition.
    """
    refuge = (await partitions(connection)).refuge
    async with connection.transaction():
        # Excludes aggregation and content written whole. Parts that come meanwhile are newer.
        await connection.execute(LOCK_LOG, log_id)
        moved: int = await connection.fetchval(RESCUE, log_id, refuge.begin, whole)
    return moved


async def drop(
    connection: Connection, name: str, retention: timedelta, lock_timeout: float
) -> bool:
    """Drop a partition; False where a log with parts in it is not finished, and it stays.

    One that is gone is dropped. Writers wait for at most `lock_timeout` seconds and the moment that
    the drop itself takes.

    Raises:
        asyncpg.LockNotAvailableError: a lock was not to be had within that time.
        PartitionError: the partition is younger than the retention.
    """
    async with connection.transaction():
        await connection.fetchval(LIMIT_WAITS, f"{lock_timeout:.3f}s")
        found = await partitions(connection)
        partition = next((one for one in found.ranges if one.name == name), None)
        if partition is None:
            return True
        if partition.end > found.now - retention:
            raise PartitionError(f"partition {name} is not older than {retention}: it stays")
        await connection.execute(LOCK_PARTITION.format(name=name))
        held = await _held(connection, name)
        if await _unfinished(connection, held):
            return False
        await connection.execute(LOCK_PARENT)
        # No log can get a part now. What became of those that were finished a moment ago?
        if await _unfinished(connection, held):
            return False
        await connection.execute(LOCK_TO_DROP.format(names=f"{name}, {found.default}"))
        await connection.execute(DROP, name)
    return True


async def analyze(connection: Connection, lock_timeout: float) -> None:
    """Gather the planner's statistics, which autovacuum does not do for a partitioned table."""
    async with connection.transaction():
        await connection.fetchval(LIMIT_WAITS, f"{lock_timeout:.3f}s")
        await connection.execute(ANALYZE)
