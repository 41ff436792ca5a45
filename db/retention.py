"""Deleting what is older than it need be, and telling beforehand what that would be.

The row lets go of the text first and owes the archive its deletion, as when content is written
whole; so a reader is never sent to an object that is gone, and who dies in between leaves nothing
behind: the sweep finds what is owed.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import NamedTuple

from db.connect import Connection
from db.logs import ARCHIVE_LOCK, LOCK_WHOLE, NOTHING_MADE, delete_text
from db.maintenance import WAIT_FOR_WRITERS, check_writing
from db.pending import NOTHING_THERE, mark_all_empty
from logflume.domain import Policy

# By the state of a policy: since when a log is in it, what the index of these logs holds, and what
# else makes a log one of them.
FINISHED = "l.archive_verified AND NOT l.late_parts AND NOT l.archive_outdated"
STATES = {
    "done": ("archived_at", "l.purged_at IS NOT NULL", FINISHED),
    "removed": (
        "archived_at",
        "l.purged_at IS NOT NULL",
        f"l.removed_at IS NOT NULL AND {FINISHED}",
    ),
    "empty": ("updated_at", "l.empty", "true"),
}
OLD = "{which} AND l.{at} < now() - make_interval(days => $1)"
MATCHING = "({more} AND coalesce(l.content_bytes, 0) > $2)"
HELD = "EXISTS (SELECT FROM log_holds h WHERE h.log_id = l.id)"
# Bounded by what it looks at, not by what it finds.
LOOK = f"""
SELECT l.id, l.{{at}} AS at, {MATCHING} AS matches, {HELD} AS held
FROM logs l
WHERE {OLD} AND (l.{{at}}, l.id) > ($3, $4)
ORDER BY l.{{at}}, l.id LIMIT $5
"""
PLAN = f"""
SELECT count(*) FILTER (WHERE NOT m.held) AS logs,
    coalesce(sum(m.bytes) FILTER (WHERE NOT m.held), 0)::bigint AS bytes,
    count(*) FILTER (WHERE m.held) AS held,
    coalesce((array_agg(m.job_id ORDER BY m.at, m.id) FILTER (WHERE NOT m.held))[:$3], '{{{{}}}}')
        AS sample
FROM (
    SELECT l.id, l.job_id, l.{{at}} AS at, coalesce(l.content_bytes, 0) AS bytes, {HELD} AS held
    FROM logs l WHERE {OLD} AND {MATCHING}
) m
"""
LOCK = "SELECT FROM logs WHERE id = ANY ($1) ORDER BY id FOR UPDATE"
# A statement of its own: it sees what was committed while we waited for the lock.
STILL = f"""
SELECT l.id, l.job_id, coalesce(l.content_bytes, 0) AS bytes,
    encode(l.content_sha256, 'hex') AS sha256
FROM logs l WHERE {OLD} AND {MATCHING} AND NOT {HELD} AND l.id = ANY ($3) ORDER BY l.id
"""
EXPIRE = f"UPDATE logs SET {NOTHING_MADE}, expired_at = now() WHERE id = ANY ($1)"

LOCK_ARCHIVE = f"""
SELECT pg_advisory_xact_lock({ARCHIVE_LOCK})
FROM (SELECT unnest($1::bigint[]) AS job_id ORDER BY 1) i
"""
OWED = "SELECT job_id FROM logs WHERE job_id = ANY ($1) AND archive_outdated ORDER BY job_id"
MARK_DELETED = "UPDATE logs SET archive_outdated = false WHERE job_id = ANY ($1)"

# Writers of parts wait for as long at most; then we do, for the next round.
LIMIT_WAITS = "SET LOCAL lock_timeout = '200ms'"
GONE = f"SELECT l.id FROM logs l WHERE l.job_id = ANY ($1) AND {NOTHING_THERE} AND NOT {HELD}"
DELETE_ATTEMPTS = "DELETE FROM log_attempts WHERE log_id = ANY ($1)"
DELETE_ROWS = "DELETE FROM logs WHERE id = ANY ($1)"


class PageToken(NamedTuple):
    """How far a look through the logs came: at the one that had this time and id."""

    at: datetime = datetime(1970, 1, 1, tzinfo=UTC)
    id: int = 0


class Found(NamedTuple):
    """What a look at some logs found; `last` is None where there are no more that are old."""

    looked: int
    log_ids: list[int]
    held: int
    last: PageToken | None


class Expired(NamedTuple):
    """A log whose text goes; size in bytes, SHA-256 in hex (None: it had no text)."""

    id: int
    job_id: int
    bytes: int
    sha256: str | None


class Plan(NamedTuple):
    """What a policy would delete now: logs, their bytes, and the jobs of the oldest of them.

    `held`: matching ones under legal hold, which stay.
    """

    logs: int
    bytes: int
    held: int
    sample: list[int]


def _query(query: str, policy: Policy) -> str:
    at, which, more = STATES[policy.state]
    return query.format(at=at, which=which, more=more)


def _limits(policy: Policy) -> tuple[int, int]:
    larger = -1 if policy.larger_than_bytes is None else policy.larger_than_bytes
    return policy.older_than_days, larger


async def look(connection: Connection, policy: Policy, after: PageToken, count: int) -> Found:
    """Look at the next `count` logs that are old, and find those that the policy is about."""
    rows = await connection.fetch(_query(LOOK, policy), *_limits(policy), *after, count)
    return Found(
        looked=len(rows),
        log_ids=[row["id"] for row in rows if row["matches"] and not row["held"]],
        held=sum(row["matches"] and row["held"] for row in rows),
        last=PageToken(rows[-1]["at"], rows[-1]["id"]) if len(rows) == count else None,
    )


async def plan(connection: Connection, policy: Policy, sample: int) -> Plan:
    """Tell what a policy would delete now, with the jobs of at most `sample` logs."""
    row = await connection.fetchrow(_query(PLAN, policy), *_limits(policy), sample)
    assert row  # noqa: S101 - aggregates always have a row
    return Plan(**row)


async def expire(connection: Connection, policy: Policy, log_ids: Sequence[int]) -> list[Expired]:
    """Let go of the text of those of these logs that the policy is still about.

    Their archived objects are owed deletion from then on. Parts of their runs that come later are
    stale.

    Raises:
        UnderMaintenance: an operator keeps everyone away from parts.
    """
    async with connection.transaction():
        await check_writing(connection)
        await connection.execute(LOCK, log_ids)
        rows = await connection.fetch(_query(STILL, policy), *_limits(policy), log_ids)
        expired = [Expired(**row) for row in rows]
        if policy.state != "empty":
            ids = [one.id for one in expired]
            await delete_text(connection, ids)
            await connection.execute(EXPIRE, ids)
    return expired


@asynccontextmanager
async def deleting(connection: Connection, job_ids: Sequence[int]) -> AsyncIterator[list[int]]:
    """Give the jobs whose objects are owed deletion, and note that they went when the block ends.

    Until then nothing new is put in their place, by anybody.
    """
    async with connection.transaction():
        await connection.execute(LOCK_ARCHIVE, job_ids)
        owed = [row["job_id"] for row in await connection.fetch(OWED, job_ids)]
        yield owed
        await connection.execute(MARK_DELETED, owed)
        await mark_all_empty(connection, owed)


async def delete_rows(connection: Connection, job_ids: Sequence[int]) -> int:
    """Delete the rows of those of these jobs' logs that have no text; returns how many.

    Nobody writes parts meanwhile: one under way would come to a row that is gone.

    Raises:
        asyncpg.LockNotAvailableError: writers hold on for too long.
    """
    async with connection.transaction():
        await connection.execute(LIMIT_WAITS)
        await connection.execute(WAIT_FOR_WRITERS)
        await connection.execute(LOCK_WHOLE, job_ids)
        ids = [row["id"] for row in await connection.fetch(GONE, job_ids)]
        await connection.execute(DELETE_ATTEMPTS, ids)
        await connection.execute(DELETE_ROWS, ids)
    return len(ids)
