"""The write path: commits a batch of parts in one transaction."""

from collections.abc import Iterable, Sequence
from datetime import datetime

from msgspec.structs import replace

from db.connect import Connection
from db.maintenance import check_writing
from db.notify import announce
from logflume.domain import LAST, Part, StoredAttempt

OPEN_ATTEMPTS = "SELECT * FROM open_attempts($1, $2, $3, $4, $5)"
COUNT_STALE = """
UPDATE log_attempts a SET stale_parts = a.stale_parts + s.count, stale_at = now()
FROM unnest($1::bigint[], $2::integer[]) s (id, count) WHERE a.id = s.id
"""
# After the attempts: opening one locked the row of its log, so this does not wait.
NOTE_NOT_EMPTY = """
UPDATE logs SET empty = false, expired_at = NULL
WHERE id = ANY ($1) AND (empty OR expired_at IS NOT NULL)
"""
COLUMNS = ("log_id", "attempt_id", "created_at", "number", "final", "content")


def begin_of(part: Part) -> datetime:
    """When the attempt of a part had begun: a publish time after its receipt is a wrong clock's."""
    return min(part.published_at or part.received_at, part.received_at)


class AttemptParts:
    """The parts of one attempt in a batch; `bytes` is the total length of their contents.

    `final`: a numbered part is final; `last_final`: a `last` part is. `lowest`: the lowest number.
    `restarts_at`: when its newest part 0 was published, which may begin a closed uuid again.
    """

    __slots__ = (
        "begins_at",
        "bytes",
        "final",
        "job_id",
        "last_final",
        "lowest",
        "parts",
        "restarts_at",
        "uuid",
    )

    def __init__(self, job_id: int, uuid: str) -> None:
        self.job_id = job_id
        self.uuid = uuid
        self.parts: list[Part] = []
        self.bytes = 0
        self.final = self.last_final = False
        self.lowest = LAST
        self.begins_at: datetime | None = None  # None for `last` parts, which begin nothing
        self.restarts_at: datetime | None = None

    def add(self, part: Part) -> None:
        """Add a part of this attempt."""
        self.parts.append(part)
        self.bytes += len(part.content)
        self.lowest = min(self.lowest, part.number)
        if part.number == LAST:
            self.last_final = self.last_final or part.final
            return
        self.final = self.final or part.final
        at = begin_of(part)
        if self.begins_at is None or at < self.begins_at:
            self.begins_at = at
        if part.number == 0 and (self.restarts_at is None or at > self.restarts_at):
            self.restarts_at = at

    def split(self, stale_until: datetime) -> "tuple[AttemptParts, AttemptParts]":
        """Separate the parts that were published after a time from the stale ones."""
        fresh, stale = (AttemptParts(self.job_id, self.uuid) for _ in range(2))
        for part in self.parts:
            (fresh if begin_of(part) > stale_until else stale).add(part)
        return fresh, stale


def by_attempt(parts: Iterable[Part]) -> list[AttemptParts]:
    """Group parts by job and attempt."""
    groups: dict[tuple[int, str], AttemptParts] = {}
    for part in parts:
        key = (part.job_id, part.attempt)
        group = groups.get(key)
        if group is None:
            group = groups[key] = AttemptParts(*key)
        group.add(part)
    return list(groups.values())


def _lowest(groups: Iterable[AttemptParts]) -> dict[int, int]:
    lowest: dict[int, int] = {}
    for group in groups:
        lowest[group.job_id] = min(group.lowest, lowest.get(group.job_id, LAST))
    return lowest


async def store_batch(
    connection: Connection, parts: Sequence[Part]
) -> list[tuple[AttemptParts, StoredAttempt]]:
    """Commit a batch: store the parts of open attempts, count those of closed ones.

    Returns each attempt's parts with where they were stored. On any error nothing is stored.

    Raises:
        UnderMaintenance: maintenance is on.
    """
    groups = by_attempt(parts)
    async with connection.transaction():
        await check_writing(connection)
        rows = await connection.fetch(
            OPEN_ATTEMPTS,
            [group.job_id for group in groups],
            [group.uuid for group in groups],
            [group.begins_at for group in groups],
            [group.restarts_at for group in groups],
            [len(group.parts) for group in groups],
        )
        occupied = await announce(connection, _lowest(groups))
        placed: list[tuple[AttemptParts, StoredAttempt]] = []
        stale: list[tuple[AttemptParts, StoredAttempt]] = []
        for group, row in zip(groups, rows, strict=True):
            columns = dict(row)
            stale_until = columns.pop("stale_until")
            stored = StoredAttempt(**columns, occupied=group.job_id in occupied)
            if stored.is_open and stale_until is not None:
                fresh, late = group.split(stale_until)
                placed += [(fresh, stored)] if fresh.parts else []
                stale += [(late, replace(stored, is_open=False))] if late.parts else []
            else:
                placed.append((group, stored))
        if stale:
            counts = [len(group.parts) for group, _ in stale]
            ids = [stored.attempt_id for _, stored in stale]
            await connection.execute(COUNT_STALE, ids, counts)
        # A log with parts has an attempt that began, or parts that begin none.
        filled = {
            stored.log_id
            for group, stored in placed
            if stored.is_open and (stored.begun or group.begins_at is None)
        }
        if filled:
            await connection.execute(NOTE_NOT_EMPTY, filled)
        # In the order of receipt, by which the ids decide which of two parts came last.
        where = {id(p): stored for group, stored in placed if stored.is_open for p in group.parts}
        records = [
            (to.log_id, to.attempt_id, p.received_at, p.number, p.final, p.content)
            for p in parts
            if (to := where.get(id(p)))
        ]
        await connection.copy_records_to_table("log_parts", records=records, columns=COLUMNS)
    return placed + stale
