"""Finds the logs of a backfill, and checks its progress."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

import msgspec

from db.connect import Connection

# Pending logs examined per call: those of another kind cost a call, too.
SCANNED = 5000

IN_RANGE = """
SELECT * FROM backfill_logs WHERE job_id BETWEEN $1 AND $2 ORDER BY job_id LIMIT $3
"""
SCAN = """
SELECT max(id) FROM (SELECT id FROM pending_rows WHERE id > $1 ORDER BY id LIMIT $2) s
"""
# Late parts are in no archive.
OF_KIND = """
SELECT b.* FROM pending_logs($1, $2, $3) p
JOIN logs l ON l.id = p.id
JOIN backfill_logs b ON b.id = p.id
WHERE p.id <= $4 AND CASE $5
    WHEN 'not_archived' THEN NOT l.archive_verified AND NOT l.archiving OR l.late_parts
    WHEN 'not_verified' THEN NOT l.archive_verified OR l.late_parts
    ELSE true END
ORDER BY p.id LIMIT $6
"""
# Verified since it was found; or purged since; or nothing is left to do.
PROGRESS = """
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
    """Selects pending logs by `name`: `not_archived`, `not_verified` or `not_purged`.

    `quiet_seconds` and `purge_seconds`: see `find_pending`.
    """

    name: str
    quiet_seconds: float
    purge_seconds: float


class BackfillLog(msgspec.Struct, frozen=True):
    """A log of a backfill.

    `heard_at`: its last write. `archived_at`: when it was verified. `bare`: it has neither parts
    nor content. `aggregated`: it has content. `ended`: it has a final part, of any attempt. `gone`:
    only the archive holds its content, its parts were dropped. `since`: the time of this query, in
    seconds since the epoch.
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


class LogPage(msgspec.Struct):
    """A page of logs, in order; `unknown`: requested jobs that have no log.

    `after`: the page token, the id up to which all logs were found. `more`: there may be others.
    """

    after: int
    more: bool = True
    logs: list[BackfillLog] = msgspec.field(default_factory=list)
    unknown: list[int] = msgspec.field(default_factory=list)


class Progress(msgspec.Struct, frozen=True):
    """Whether a log is done; `waited`: seconds since it was found."""

    job_id: int
    waited: float
    done: bool


async def find_in_ranges(
    connection: Connection, ranges: Sequence[tuple[int, int]], after: int, count: int
) -> LogPage:
    """Find at most `count` logs of jobs above `after` in these ascending ranges."""
    found = LogPage(after)
    for first, last in ranges:
        if last <= found.after:
            continue
        room = count - len(found.logs) - len(found.unknown)
        if not room:
            return found
        rows = await connection.fetch(IN_RANGE, max(first, found.after + 1), last, room)
        found.logs += [BackfillLog(**row) for row in rows]
        if first == last and not rows:
            found.unknown.append(first)
        found.after = rows[-1]["job_id"] if len(rows) == room else last
    found.more = found.after < ranges[-1][1]
    return found


async def find_of_kind(connection: Connection, kind: Kind, after: int, count: int) -> LogPage:
    """Find at most `count` pending logs of a kind with log ids above `after`.

    Examines a bounded number of pending logs, so a page may have fewer logs, or none.
    """
    through = await connection.fetchval(SCAN, after, SCANNED)
    if through is None:
        return LogPage(after, more=False)
    rows = await connection.fetch(
        OF_KIND, after, kind.quiet_seconds, kind.purge_seconds, through, kind.name, count
    )
    after = rows[-1]["id"] if len(rows) == count else through
    return LogPage(after, logs=[BackfillLog(**row) for row in rows])


async def check_progress(
    connection: Connection, pending: Sequence[tuple[int, float, bool]]
) -> list[Progress]:
    """Check which of these jobs' logs are done: verified, purged or without work left.

    Each is given with the time it was found, and whether it is to be archived again, so that an
    earlier archive does not count.
    """
    job_ids, since, again = zip(*pending, strict=True) if pending else ((), (), ())
    rows = await connection.fetch(PROGRESS, job_ids, since, again)
    return [Progress(**row) for row in rows]
