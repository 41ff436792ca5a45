"""Maintains the partitions of `log_parts`: creates them ahead, moves parts out, drops them.

pg_partman creates partitions but never drops one: it cannot know which logs are archived. Every
lock that could block other transactions is requested with a timeout; the caller retries.
"""

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Literal, NamedTuple

from db.connect import Connection
from logflume.errors import PartitionError

Interval = Literal["daily", "hourly"]
STEPS: dict[Interval, timedelta] = {"daily": timedelta(days=1), "hourly": timedelta(hours=1)}
# A part is committed within much less time than this after it was received.
COMMITTED_AFTER = timedelta(minutes=10)

LIST = 'SELECT name, "begin", "end" FROM log_partitions ORDER BY "begin"'
NOW = "SELECT now()"
LIMIT_WAITS = "SELECT set_config('lock_timeout', $1, true)"

# These two and DROP and ANALYZE run as the schema's owner, see `db/deploy/log_parts.sql`.
CONFIGURE = "SELECT configure_partitions($1, $2)"
MAKE = "SELECT make_partition($1)"
# The locks that creating a partition takes. Requested here, because pg_partman would report a lock
# timeout by an error without a code.
LOCK_PARENT_TO_MAKE = "LOCK TABLE ONLY log_parts IN SHARE UPDATE EXCLUSIVE MODE"
LOCK = "SELECT lock_partition($1, false)"
LOCK_FREE = "SELECT lock_partition($1, true)"
HAS_PARTS = "SELECT partition_has_parts($1, $2, $3)"

STORED_LOGS = "SELECT log_id FROM partition_logs($1) log_id"
# A log's parts may be dropped once it is archived, verified and purged and no part arrived since.
# Under legal hold, parts of superseded attempts stay: the archive does not have them.
UNFINISHED = """
SELECT i.id FROM unnest($1::bigint[]) i (id) LEFT JOIN logs l ON l.id = i.id
WHERE (l.archive_verified AND l.purged_at IS NOT NULL AND NOT l.late_parts) IS NOT TRUE
    OR i.id IN (SELECT log_id FROM log_holds) AND EXISTS (
        SELECT FROM log_parts p
        WHERE p.log_id = i.id AND p.number BETWEEN 0 AND number_last() - 1
            AND p.attempt_id IS DISTINCT FROM l.content_attempt_id
    )
ORDER BY i.id
"""
# Parts from clocks that are wrong by days. Parts of today, if today has no partition, stay.
STRAYS = "SELECT log_id, ahead FROM stray_logs($1, $2)"

LOCK_LOG = "SELECT FROM logs WHERE id = $1 FOR NO KEY UPDATE"
# Moves parts older than the partition, or all of them, to its begin. Their ids, and with them the
# order of all parts, stay. `parts_since` follows the part it was taken from.
RESCUE = """
WITH noted AS (
    UPDATE logs l SET parts_since = $2 WHERE l.id = $1 AND EXISTS (
        SELECT FROM log_parts p
        WHERE p.log_id = l.id AND p.created_at = l.parts_since AND ($3 OR p.created_at < $2)
    )
), moved AS (
    UPDATE log_parts p SET created_at = $2 WHERE p.log_id = $1 AND ($3 OR p.created_at < $2)
    RETURNING 1
)
SELECT count(*) FROM moved
"""

# Blocks new parts in a partition that is to be dropped, but not readers.
FREEZE = "SELECT freeze_partition($1)"
LOCK_PARENT_TO_DROP = "LOCK TABLE ONLY log_parts IN ACCESS EXCLUSIVE MODE"
DROP = "SELECT drop_partition($1)"
ANALYZE = "SELECT analyze_parts()"


class Partition(NamedTuple):
    """A partition and its bounds: receive times from `begin` until before `end`."""

    name: str
    begin: datetime
    end: datetime


class Partitions(NamedTuple):
    """All partitions in order, the name of the default one, and the database's time."""

    ranges: list[Partition]
    default: str
    now: datetime

    def holding(self, moment: datetime) -> Partition | None:
        """Return the partition for parts received at this time."""
        return next((one for one in self.ranges if one.begin <= moment < one.end), None)

    @property
    def refuge(self) -> Partition:
        """The newest partition whose begin no new part can reach any more.

        Raises:
            PartitionError: no partition covers the current time.
        """
        found = self.holding(self.now - COMMITTED_AFTER)
        if found is None:
            raise PartitionError(
                "no partition covers the current time; new parts go to the default partition "
                "and are moved after the next one starts"
            )
        return found


async def partitions(connection: Connection) -> Partitions:
    """List the partitions of `log_parts`."""
    rows = await connection.fetch(LIST)
    default = next(row["name"] for row in rows if row["begin"] is None)
    ranges = [Partition(**row) for row in rows if row["begin"] is not None]
    return Partitions(ranges, default, await connection.fetchval(NOW))


async def expired(connection: Connection, retention: timedelta) -> list[str]:
    """List the partitions with only parts older than the retention, oldest first."""
    found = await partitions(connection)
    return [one.name for one in found.ranges if one.end <= found.now - retention]


async def make_ahead(
    connection: Connection,
    interval: Interval,
    premake: int,
    lock_timeout: float,
    made: Callable[[datetime], object],
) -> list[datetime]:
    """Create the partition of the current time and `premake` later ones, unless they exist.

    Calls `made` with the begin of each. Returns the begins of those that could not be created
    because the default partition holds parts for them.

    Raises:
        asyncpg.LockNotAvailableError: a lock was not granted within `lock_timeout` seconds; the
            partitions created until then stay.
    """
    found = await partitions(connection)
    blocked: list[datetime] = []
    for begin, end in missing(found, STEPS[interval], premake):
        async with connection.transaction():
            if await connection.fetchval(HAS_PARTS, found.default, begin, end):
                blocked.append(begin)
                continue
            await connection.fetchval(LIMIT_WAITS, f"{lock_timeout:.3f}s")
            await connection.execute(LOCK_PARENT_TO_MAKE)
            await connection.execute(LOCK, found.default)
            await connection.execute(CONFIGURE, end - begin, premake)
            if not await connection.fetchval(MAKE, begin):
                raise PartitionError(
                    f"cannot create the partition that begins {begin}: another table has its "
                    "name but is not a partition of log_parts; rename it"
                )
        made(begin)
    await connection.execute(CONFIGURE, STEPS[interval], premake)
    return blocked


def missing(
    found: Partitions, step: timedelta, premake: int
) -> Iterator[tuple[datetime, datetime]]:
    """Yield the begin and end of each partition that should exist but does not.

    After a change of the interval existing partitions stay; the gap between them and the next full
    day or hour becomes one shorter partition.
    """
    midnight = found.now.replace(hour=0, minute=0, second=0, microsecond=0)
    until = midnight + ((found.now - midnight) // step + premake + 1) * step
    # Parts received shortly before now may not be committed yet.
    at = midnight + (found.now - COMMITTED_AFTER - midnight) // step * step
    while at < until:
        existing = found.holding(at)
        if existing is not None:
            at = existing.end
            continue
        boundary = midnight + ((at - midnight) // step + 1) * step
        end = min([boundary, *(one.begin for one in found.ranges if at < one.begin)])
        yield at, end
        at = end


async def unfinished(connection: Connection, name: str) -> list[int]:
    """List the logs, by log id, because of which a partition must not be dropped yet."""
    return await _unfinished(connection, await _stored_logs(connection, name))


async def _stored_logs(connection: Connection, name: str) -> list[int]:
    return [row["log_id"] for row in await connection.fetch(STORED_LOGS, name)]


async def _unfinished(connection: Connection, log_ids: Sequence[int]) -> list[int]:
    return [row["id"] for row in await connection.fetch(UNFINISHED, log_ids)]


async def strays(connection: Connection) -> list[tuple[int, bool]]:
    """List the logs with stray parts in the default partition; True: some are ahead of now."""
    found = await partitions(connection)
    rows = await connection.fetch(STRAYS, found.default, found.refuge.begin)
    return [(row["log_id"], row["ahead"]) for row in rows]


async def rescue(connection: Connection, log_id: int, *, whole: bool = False) -> int:
    """Move a log's old parts to the newest partition that has begun; returns how many.

    That changes neither the content, nor which duplicate counts, nor whether parts are missing.
    `whole` moves all parts, whatever their receive time.

    Raises:
        PartitionError: no partition covers the current time.
    """
    refuge = (await partitions(connection)).refuge
    async with connection.transaction():
        # Excludes aggregation and writing content whole. Parts that arrive meanwhile are newer.
        await connection.execute(LOCK_LOG, log_id)
        moved: int = await connection.fetchval(RESCUE, log_id, refuge.begin, whole)
    return moved


async def drop(
    connection: Connection, name: str, retention: timedelta, lock_timeout: float
) -> bool:
    """Drop a partition; False if a log with parts in it is unfinished, so that it stays.

    Idempotent. Writers wait for at most `lock_timeout` seconds plus the drop itself.

    Raises:
        asyncpg.LockNotAvailableError: a lock was not granted within that time.
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
        await connection.execute(FREEZE, name)
        log_ids = await _stored_logs(connection, name)
        if await _unfinished(connection, log_ids):
            return False
        await connection.execute(LOCK_PARENT_TO_DROP)
        # No log can get a part any more, but a finished one may have been reopened since.
        if await _unfinished(connection, log_ids):
            return False
        # Writers wait for the parent by now, so these locks are free. Dropping a partition changes
        # which parts the default one may hold.
        for locked in (name, found.default):
            await connection.execute(LOCK_FREE, locked)
        await connection.execute(DROP, name)
    return True


async def analyze(connection: Connection, lock_timeout: float) -> None:
    """Gather the planner's statistics, which autovacuum skips for a partitioned table."""
    async with connection.transaction():
        await connection.fetchval(LIMIT_WAITS, f"{lock_timeout:.3f}s")
        await connection.execute(ANALYZE)
