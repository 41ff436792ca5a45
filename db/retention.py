"""Retention: previews and deletes logs that are older than a policy allows.

The row is cleared first and records a pending archive deletion, so a reader is never sent to a
deleted object, and a crash in between is repaired by the sweep.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import NamedTuple

from db.connect import Connection, allow_transfers
from db.logs import LOCK_WHOLE, clear, delete_text
from db.maintenance import WAIT_FOR_WRITERS, check_writing
from db.pending import mark_all_empty
from logflume.domain import Policy

# Bounded by the logs it examines, not by those it returns.
PAGE = """
SELECT id, at, matches, held FROM expirable_logs($1, $2, $3) l
WHERE (at, id) > ($4, $5) ORDER BY at, id LIMIT $6
"""
PLAN = """
SELECT count(*) FILTER (WHERE NOT l.held) AS logs,
    coalesce(sum(l.bytes) FILTER (WHERE NOT l.held), 0)::bigint AS bytes,
    count(*) FILTER (WHERE l.held) AS held,
    coalesce((array_agg(l.job_id ORDER BY l.at, l.id) FILTER (WHERE NOT l.held))[:$4], '{}')
        AS sample
FROM expirable_logs($1, $2, $3) l WHERE l.matches
"""
LOCK = "SELECT FROM logs WHERE id = ANY ($1) ORDER BY id FOR UPDATE"
# A separate statement: it sees what was committed while LOCK waited.
STILL_EXPIRABLE = """
SELECT id, job_id, bytes, sha256 FROM expirable_logs($1, $2, $3) l
WHERE matches AND NOT held AND id = ANY ($4) ORDER BY id
"""

LOCK_OBJECTS = """
SELECT lock_archived_object(job_id, false)
FROM (SELECT unnest($1::bigint[]) AS job_id ORDER BY 1) i
"""
PENDING = "SELECT job_id FROM logs WHERE job_id = ANY ($1) AND archive_outdated ORDER BY job_id"
# A deletion that arrives late must not remove what is archived next.
MARK_DELETED = """
UPDATE logs SET archive_outdated = false, archive_settles_at = now() + make_interval(secs => $2)
WHERE job_id = ANY ($1)
"""

# Writers of parts wait at most this long; then this gives up until the next round.
LIMIT_WAITS = "SET LOCAL lock_timeout = '200ms'"
BARE = """
SELECT l.id FROM bare_logs l WHERE l.job_id = ANY ($1)
    AND NOT EXISTS (SELECT FROM log_holds h WHERE h.log_id = l.id)
"""
DELETE_ATTEMPTS = "DELETE FROM log_attempts WHERE log_id = ANY ($1)"
DELETE_ROWS = "DELETE FROM logs WHERE id = ANY ($1)"


class PageToken(NamedTuple):
    """Keyset pagination: the time and id of the last log of a page."""

    at: datetime = datetime(1970, 1, 1, tzinfo=UTC)
    id: int = 0


class ExpirablePage(NamedTuple):
    """A page of old logs: how many were examined, and which of them the policy deletes.

    `held`: matching logs under legal hold. `next`: the token of the next page, None after the last.
    """

    examined: int
    log_ids: list[int]
    held: int
    next: PageToken | None


class Expired(NamedTuple):
    """A log whose text is deleted; size in bytes, SHA-256 in hex (None: it had no text)."""

    id: int
    job_id: int
    bytes: int
    sha256: str | None


class Plan(NamedTuple):
    """What a policy would delete now: logs, their bytes, and the jobs of the oldest ones.

    `held`: matching logs under legal hold, which stay.
    """

    logs: int
    bytes: int
    held: int
    sample: list[int]


def criteria(policy: Policy) -> tuple[str, int, int]:
    """Return the arguments of `expirable_logs` for a policy."""
    larger = -1 if policy.larger_than_bytes is None else policy.larger_than_bytes
    return policy.state, policy.older_than_days, larger


async def find_expirable(
    connection: Connection, policy: Policy, after: PageToken, count: int
) -> ExpirablePage:
    """Examine the next `count` old logs, oldest first, for those that a policy deletes."""
    rows = await connection.fetch(PAGE, *criteria(policy), *after, count)
    return ExpirablePage(
        examined=len(rows),
        log_ids=[row["id"] for row in rows if row["matches"] and not row["held"]],
        held=sum(row["matches"] and row["held"] for row in rows),
        next=PageToken(rows[-1]["at"], rows[-1]["id"]) if len(rows) == count else None,
    )


async def plan(connection: Connection, policy: Policy, sample: int) -> Plan:
    """Preview what a policy would delete now, with the jobs of at most `sample` logs."""
    row = await connection.fetchrow(PLAN, *criteria(policy), sample)
    assert row  # noqa: S101 - aggregates always return a row
    return Plan(**row)


async def expire(connection: Connection, policy: Policy, log_ids: Sequence[int]) -> list[Expired]:
    """Delete the text of those of these logs that the policy still matches.

    Records a pending deletion of their archived objects, and closes their attempts: parts that
    arrive later are stale.

    Raises:
        UnderMaintenance: maintenance is on.
    """
    async with connection.transaction():
        await check_writing(connection)
        await connection.execute(LOCK, log_ids)
        rows = await connection.fetch(STILL_EXPIRABLE, *criteria(policy), log_ids)
        expired = [Expired(**row) for row in rows]
        if policy.state != "empty":
            ids = [log.id for log in expired]
            await delete_text(connection, ids)
            await clear(connection, ids, expired=True)
    return expired


@asynccontextmanager
async def pending_deletions(
    connection: Connection, job_ids: Sequence[int], settle_seconds: float
) -> AsyncIterator[list[int]]:
    """Yield the jobs with a pending deletion; when the block ends, record it as done.

    `settle_seconds`: for which a deletion may be executed late. Inside the block no upload of these
    jobs can start.
    """
    async with connection.transaction():
        await allow_transfers(connection)
        await connection.execute(LOCK_OBJECTS, job_ids)
        pending = [row["job_id"] for row in await connection.fetch(PENDING, job_ids)]
        yield pending
        await connection.execute(MARK_DELETED, pending, settle_seconds)
        await mark_all_empty(connection, pending, deleted=True)


async def delete_rows(connection: Connection, job_ids: Sequence[int]) -> int:
    """Delete the rows of those of these jobs' logs that have no text; returns how many.

    Blocks writers of parts: one in progress could otherwise insert parts of a deleted row.

    Raises:
        asyncpg.LockNotAvailableError: writers took too long.
    """
    async with connection.transaction():
        await connection.execute(LIMIT_WAITS)
        await connection.execute(WAIT_FOR_WRITERS)
        await connection.execute(LOCK_WHOLE, job_ids)
        ids = [row["id"] for row in await connection.fetch(BARE, job_ids)]
        await connection.execute(DELETE_ATTEMPTS, ids)
        await connection.execute(DELETE_ROWS, ids)
    return len(ids)
