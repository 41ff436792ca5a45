"""Finding the logs of a backfill, and what became of them."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

import msgspec

from db.connect import Connection
from db.pending import COLUMNS, LOGS, OWED, UNFINISHED

# Late parts are in no archive.
KINDS = {
    "not_archived": "(NOT l.archive_verified AND NOT l.archiving OR l.late_parts)",
    "not_verified": "(NOT l.archive_verified OR l.late_parts)",
    "not_purged": "true",
}
# What is unfinished and of another kind is passed over by so many at a time.
SCANNED = 5000

# A final part of an earlier attempt counts too: such a log is followed, and no more than that.
FOUND = f"""
SELECT {COLUMNS}, l.aggregated_at IS NOT NULL AS aggregated,
    EXISTS (SELECT FROM log_parts WHERE log_id = l.id AND (final OR number = -1)) AS ended,
    l.purged_at IS NOT NULL AND NOT l.late_parts AND NOT EXISTS (
        SELECT FROM log_parts WHERE log_id = l.id AND created_at = l.parts_since
    ) AS gone,
    extract(epoch FROM now())::float8 AS since
FROM {LOGS}
"""
IN_RANGE = f"{FOUND} WHERE l.job_id BETWEEN $1 AND $2 ORDER BY l.job_id LIMIT $3"
SCAN = f"""
SELECT max(id) FROM (
    SELECT l.id FROM logs l WHERE {UNFINISHED} AND l.id > $1 ORDER BY l.id LIMIT {SCANNED}
) s
"""
OF_KIND = {
    name: f"{FOUND} WHERE {OWED} AND l.id <= $4 AND {is_kind} ORDER BY l.id LIMIT $5"
    for name, is_kind in KINDS.items()
}

# Read back and found right; or purged, where it was not when it was found; or nothing is left.
FOLLOW = """
SELECT f.job_id, extract(epoch FROM now())::float8 - f.since AS waited,
    l.id IS NOT NULL AND NOT l.late_parts AND NOT l.archive_outdated AND (
        l.archive_verified AND (
            l.archived_at >= to_timestamp(f.since) OR l.purged_at IS NOT NULL AND NOT f.again
        )
        OR l.aggregated_at IS NULL AND NOT EXISTS (SELECT FROM log_parts WHERE log_id = l.id)
    ) AS done
FROM unnest($1::bigint[], $2::float8[], $3::boolean[]) f (job_id, since, again)
LEFT JOIN logs l USING (job_id)
"""


class Kind(NamedTuple):
    """Unfinished logs of the kind `name`; the times are those of `find_unfinished`."""

    name: str
    quiet_seconds: float
    purge_seconds: float


class Found(msgspec.Struct, frozen=True):
    """A log of a backfill.

    `heard_at`: when it was last written to. `archived_at`: when it was verified, if it was. `bare`:
    it has neither parts nor content. `aggregated`: it has content. `ended`: it has its final part.
    `gone`: nothing but the archive holds it, its parts being gone. `since`: now, in seconds since
    the epoch.
    """

    id: int
    job_id: int
    heard_at: datetime
    archived_at: datetime | None
    bare: bool
    aggregated: bool
    ended: bool
    gone: bool
    since: float


class Stretch(msgspec.Struct):
    """Logs in the order asked for, and jobs that were asked for by name and have none.

    `after`: up to where all were found. `more`: whether there may be some behind it.
    """

    after: int
    more: bool = True
    logs: list[Found] = msgspec.field(default_factory=list)
    unknown: list[int] = msgspec.field(default_factory=list)


class State(msgspec.Struct, frozen=True):
    """Whether a log got to its end since it was found, `waited` seconds ago."""

    job_id: int
    waited: float
    done: bool


async def find_in_ranges(
    connection: Connection, ranges: Sequence[tuple[int, int]], after: int, count: int
) -> Stretch:
    """Find at most `count` logs of jobs above `after` in these ranges, which are in order."""
    found = Stretch(after)
    for first, last in ranges:
        if last <= found.after:
            continue
        room = count - len(found.logs) - len(found.unknown)
        if not room:
            return found
        rows = await connection.fetch(IN_RANGE, max(first, found.after + 1), last, room)
        found.logs += [Found(**row) for row in rows]
        if first == last and not rows:
            found.unknown.append(first)
        found.after = rows[-1]["job_id"] if len(rows) == room else last
    found.more = found.after < ranges[-1][1]
    return found


async def find_of_kind(connection: Connection, kind: Kind, after: int, count: int) -> Stretch:
    """Find at most `count` unfinished logs of a kind with ids above `after`.

    It looks at so many unfinished logs and no more, so it may find fewer though there are some.
    """
    through = await connection.fetchval(SCAN, after)
    if through is None:
        return Stretch(after, more=False)
    rows = await connection.fetch(
        OF_KIND[kind.name], after, kind.quiet_seconds, kind.purge_seconds, through, count
    )
    after = rows[-1]["id"] if len(rows) == count else through
    return Stretch(after, logs=[Found(**row) for row in rows])


async def follow(connection: Connection, pending: Sequence[tuple[int, float, bool]]) -> list[State]:
    """Tell of jobs' logs whether they got to their ends.

    Of each is given when it was found, and whether it is archived again, so that what was archived
    before does not count.
    """
    columns = [[row[column] for row in pending] for column in range(3)]
    return [State(**row) for row in await connection.fetch(FOLLOW, *columns)]
