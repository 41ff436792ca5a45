"""The write path: commits a batch of parts in one statement."""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from msgspec.structs import replace

from db.connect import Connection
from db.maintenance import check
from logflume.domain import LAST, Part, StoredAttempt
from logflume.errors import UnderMaintenance

STORE = """
SELECT * FROM store_parts($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13,
    $14, $15, $16, $17)
"""
ADD = """
INSERT INTO log_parts (log_id, attempt_id, created_at, number, final, content)
SELECT $1, $2, p.* FROM unnest($3::timestamptz[], $4::integer[], $5::boolean[], $6::bytea[]) p
"""
# How long a batch waits for one lock. Meanwhile it holds locks that others wait for.
LOCK_WAIT = timedelta(seconds=20)


def begin_of(part: Part) -> datetime:
    """When the attempt of a part had begun: a publish time after its receipt is a wrong clock's."""
    return min(part.published_at or part.received_at, part.received_at)


class AttemptParts:
    """The parts of one attempt in a batch; `bytes` is the total length of their contents.

    `final`: a numbered part is final; `last_final`: a `last` part is.
    `restarts_at`: when its newest part 0 was published, which may begin a closed uuid again.
    """

    __slots__ = (
        "begins_at",
        "bytes",
        "final",
        "job_id",
        "last_final",
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
        self.begins_at: datetime | None = None  # None for `last` parts, which begin nothing
        self.restarts_at: datetime | None = None

    def add(self, part: Part) -> None:
        """Add a part of this attempt."""
        self.parts.append(part)
        self.bytes += len(part.content)
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


async def store_batch(
    connection: Connection, parts: Sequence[Part]
) -> list[tuple[AttemptParts, StoredAttempt]]:
    """Commit a batch: store the parts of open attempts, count those of closed ones.

    Returns each attempt's parts with where they were stored. On any error nothing is stored.

    Raises:
        UnderMaintenance: maintenance is on.
    """
    groups = by_attempt(parts)
    places = {(group.job_id, group.uuid): place for place, group in enumerate(groups, 1)}
    totals = [(n, part.total) for n, part in enumerate(parts, 1) if part.total]
    ends = {(parts[n - 1].job_id, parts[n - 1].attempt) for n, _ in totals}
    rows = await connection.fetch(
        STORE,
        [group.job_id for group in groups],
        [group.uuid for group in groups],
        [group.begins_at for group in groups],
        [group.restarts_at for group in groups],
        [(group.job_id, group.uuid) in ends for group in groups],
        [len(group.parts) for group in groups],
        [places[part.job_id, part.attempt] for part in parts],
        [begin_of(part) for part in parts],
        [part.received_at for part in parts],
        [part.number for part in parts],
        [part.final for part in parts],
        [part.content for part in parts],
        [n for n, _ in totals],
        [total.parts for _, total in totals],
        [total.bytes for _, total in totals],
        [bytes.fromhex(total.sha256) for _, total in totals],
        LOCK_WAIT,
    )
    if not rows and groups:
        await check(connection)
        raise UnderMaintenance(0)  # it ended between the two statements
    placed: list[tuple[AttemptParts, StoredAttempt]] = []
    stale: list[tuple[AttemptParts, StoredAttempt]] = []
    for group, row in zip(groups, rows, strict=True):
        columns = dict(row)
        stale_until = columns.pop("stale_until")
        stored = StoredAttempt(**columns)
        if stored.is_open and stale_until is not None:
            fresh, late = group.split(stale_until)
            placed += [(fresh, stored)] if fresh.parts else []
            stale += [(late, replace(stored, is_open=False))] if late.parts else []
        else:
            placed.append((group, stored))
    return placed + stale


async def add_parts(
    connection: Connection,
    log_id: int,
    attempt_id: int,
    parts: Sequence[tuple[datetime, int, bool, bytes]],
) -> None:
    """Add parts to an attempt; each is its receive time, number, `final` and content."""
    await connection.execute(ADD, log_id, attempt_id, *map(list, zip(*parts, strict=True)))
