"""Names, inputs and results of the activities: what workflows know of them."""

from dataclasses import dataclass, field
from typing import Literal

from logflume.domain import Policy

AGGREGATE = "aggregate"
ARCHIVE = "archive"
VERIFY = "verify"
PURGE = "purge"
CHECK_ARCHIVE = "check_archive"
DELETE_ARCHIVE = "delete_archive"
RESTORE = "restore"
SWEEP_PAGE = "sweep_page"
BACKFILL_PAGE = "backfill_page"
CREATE_PARTITIONS = "create_partitions"
FIND_EXPIRED = "find_expired_partitions"
RESCUE_STRAYS = "rescue_strays"
RESCUE_PARTS = "rescue_parts"
DROP_PARTITION = "drop_partition"
ANALYZE_PARTS = "analyze_parts"
EXPIRE_LOGS = "expire_logs"
DELETE_EXPIRED = "delete_expired"

# Unfinished logs: without an upload, without a verified archive, and all. Each kind includes the
# one before it.
BACKFILL_KINDS = ("not_archived", "not_verified", "not_purged")


def archive_queue(task_queue: str) -> str:
    """The task queue of archive activities, beside that of workflows and database activities."""
    return f"{task_queue}-archive"


@dataclass(frozen=True)
class AggregateInput:
    """Aggregate a log's parts into its content, at most `max_bytes`; the rest is cut off.

    `force`: even if the log has not ended. `restore`: again even if it is archived.
    """

    job_id: int
    max_bytes: int
    force: bool = False
    restore: bool = False


@dataclass(frozen=True)
class ArchiveInput:
    """Archive, verify or purge the content with this SHA-256 (hex) and size in bytes."""

    job_id: int
    sha256: str
    bytes: int
    parts: int


@dataclass(frozen=True)
class Verdict:
    """Result of verifying an archived object; `reason`: why it is not ok.

    `replaced`: the object is intact, but the log has other content by now. `refused`: the store
    refused a request or did not answer; nothing is known about the object. `settles_seconds`: as in
    `Content`.
    """

    ok: bool
    replaced: bool = False
    reason: str = ""
    refused: bool = False
    settles_seconds: float | None = None


@dataclass(frozen=True)
class Timeline:
    """The timeline of Postgres that a sweep saw, and when it last changed (epoch seconds, or 0).

    The sweeps pass it on in Temporal: the database of a server that takes over cannot know which
    server was the primary before.
    """

    id: str = ""
    changed_at: float = 0


@dataclass(frozen=True)
class SweepPageInput:
    """Process up to `logs` unfinished logs with ids above `after`.

    Only logs that nothing was written to for `quiet_seconds`, and verified logs whose purge, due
    `purge_seconds` after the verification, is overdue. `timeline`: as the sweep knows it.
    """

    after: int
    logs: int
    quiet_seconds: float
    purge_seconds: float
    timeline: Timeline = Timeline()


@dataclass(frozen=True)
class SweepPage:
    """What happened to the logs of one page of the sweep.

    `running`: left to their workflow. `started`: a workflow was started. `signalled`: the final
    part or replaced content was signalled again. `emptied`: without parts, so ignored until some
    arrive. `failed`: left to the next round. `after`: the last id; 0 on the last page. `timeline`:
    that of Postgres.
    """

    found: int = 0
    running: int = 0
    started: int = 0
    signalled: int = 0
    emptied: int = 0
    failed: int = 0
    after: int = 0
    timeline: Timeline = Timeline()


@dataclass(frozen=True)
class Followed:
    """A log that a backfill waits for.

    `since`: when it was found, in seconds since the epoch. `again`: wait for a new archive, even if
    the log was archived before.
    """

    job_id: int
    since: float
    again: bool


@dataclass(frozen=True)
class Failure:
    """A log that a backfill could not finish, and why."""

    job_id: int
    reason: str


@dataclass(frozen=True)
class BackfillPageInput:
    """Continue a backfill for some seconds.

    `ranges`: job ids, first and last inclusive, sorted; without ranges, logs of this `kind`.
    `after`: the job id (with a kind, the log id) up to which all logs were found. `more`: whether
    to find more logs or only to follow `pending`. The other limits are those of `BackfillInput`.
    """

    kind: str
    ranges: list[tuple[int, int]]
    after: int
    more: bool
    pending: list[Followed]
    concurrency: int
    rate: int
    limit_seconds: float
    quiet_seconds: float
    purge_seconds: float


@dataclass
class BackfillPage:
    """What one page of a backfill did, in numbers of logs.

    `after`, `more` and `pending` (logs that are still followed) go into the next page's input.
    `found`: in this page; `done` and `failed` include logs found in earlier pages. `left`: to the
    workflow that tracks them. `empty`: without parts. `failures` names the first failed ones.
    """

    after: int
    more: bool
    pending: list[Followed]
    found: int = 0
    done: int = 0
    left: int = 0
    empty: int = 0
    failed: int = 0
    failures: list[Failure] = field(default_factory=list)


@dataclass(frozen=True)
class PartitionOptions:
    """Options of partition maintenance; see the settings `LOGFLUME_PARTITIONS__*`."""

    interval: Literal["daily", "hourly"]
    retention_seconds: float
    premake: int
    lock_timeout_seconds: float


@dataclass(frozen=True)
class DropInput:
    """Drop this partition if it is past its retention."""

    name: str
    options: PartitionOptions


@dataclass(frozen=True)
class CreatedPartitions:
    """Start times of created partitions, and of those blocked by parts in the default partition."""

    created: list[str] = field(default_factory=list)
    blocked: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Rescued:
    """How many parts, of how many logs, were moved to a newer partition."""

    parts: int = 0
    logs: int = 0

    def __add__(self, other: "Rescued") -> "Rescued":
        """Sum both."""
        return Rescued(self.parts + other.parts, self.logs + other.logs)


@dataclass(frozen=True)
class RetentionToken:
    """The page token of one policy: time (ISO 8601) and id of the last log examined."""

    at: str = ""
    id: int = 0


@dataclass(frozen=True)
class ExpireInput:
    """Examine the next `logs` old logs and clear the text of those that the policy matches."""

    policy: Policy
    after: RetentionToken
    logs: int


@dataclass(frozen=True)
class ExpiredPage:
    """The jobs whose logs expired, of the logs `examined`; `bytes`: the text they had.

    `held`: logs that match but are under legal hold. `last`: None on the last page.
    """

    examined: int
    job_ids: list[int]
    bytes: int
    held: int
    last: RetentionToken | None


@dataclass(frozen=True)
class DeleteInput:
    """Delete the archived objects of these jobs, whose text was cleared; `rows`: also the rows."""

    job_ids: list[int]
    rows: bool
