"""Names, inputs and results of the activities: all that a workflow knows of them."""

from dataclasses import dataclass, field
from typing import Literal

from logflume.domain import MAX_LOG_BYTES, Policy

AGGREGATE = "aggregate"
ARCHIVE = "archive"
VERIFY = "verify"
PURGE = "purge"
DELETE_ARCHIVE = "delete_archive"
RESTORE = "restore"
SWEEP_PAGE = "sweep_page"
BACKFILL_PAGE = "backfill_page"
MAKE_PARTITIONS = "make_partitions"
FIND_EXPIRED = "find_expired_partitions"
RESCUE_STRAYS = "rescue_strays"
RESCUE_PARTS = "rescue_parts"
DROP_PARTITION = "drop_partition"
ANALYZE_PARTS = "analyze_parts"
EXPIRE_LOGS = "expire_logs"
DELETE_EXPIRED = "delete_expired"

# Of unfinished logs: those of which no upload was begun, those of which the archive was not read
# back and found right, and all. Each kind holds the one before it.
BACKFILL_KINDS = ("not_archived", "not_verified", "not_purged")


def archive_queue(task_queue: str) -> str:
    """The task queue of archive work, beside that of workflows and database activities."""
    return f"{task_queue}-archive"


@dataclass(frozen=True)
class AggregateOrder:
    """Make a log's content of its parts.

    `force`: even if the log has not ended. `restore`: make it anew even if it is archived. Of a
    log that is longer than `max_bytes` the rest is left out.
    """

    job_id: int
    force: bool = False
    restore: bool = False
    max_bytes: int = MAX_LOG_BYTES


@dataclass(frozen=True)
class ArchiveOrder:
    """Archive, verify or purge the content with this SHA-256 (hex); size in bytes."""

    job_id: int
    sha256: str
    bytes: int
    parts: int


@dataclass(frozen=True)
class Verdict:
    """What reading an archived object back showed; `reason` says what was wrong with it.

    `replaced`: the object is good but the log has other content by now.
    """

    ok: bool
    replaced: bool = False
    reason: str = ""


@dataclass(frozen=True)
class SweepOrder:
    """Look at up to `logs` unfinished logs with ids above `after`.

    At those that nothing was written to for `quiet_seconds`; at verified ones when their purge,
    `purge_seconds` after the verification, is overdue.
    """

    after: int
    logs: int
    quiet_seconds: float
    purge_seconds: float


@dataclass(frozen=True)
class SweepPage:
    """What came of the logs that a page of the sweep found.

    `running`: left to their workflows. `started`: given one. `told`: their workflow was told that
    the final part is there, or that content was written whole. `emptied`: without parts, not looked
    at again until some come. `failed`: left to the next round. `after`: the id of the last one; 0:
    there are no more.
    """

    found: int = 0
    running: int = 0
    started: int = 0
    told: int = 0
    emptied: int = 0
    failed: int = 0
    after: int = 0


@dataclass(frozen=True)
class Followed:
    """A log that a backfill waits for.

    `since`: when it was found, in seconds since the epoch. `again`: it is archived again, whether
    it was archived or not.
    """

    job_id: int
    since: float
    again: bool


@dataclass(frozen=True)
class Failure:
    """A log that did not get to its end in a backfill, and why."""

    job_id: int
    reason: str


@dataclass(frozen=True)
class BackfillOrder:
    """Go on with a backfill for some seconds.

    `ranges`: from and up to these job ids, in their order; or else `kind`. `after`: the job id, or
    the log id where a kind is given, up to which all were found. `more`: look for more logs, or
    only follow those in `pending`. `rate`: logs a second at most. The times are those of
    `BackfillInput`.
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
    """How far a backfill got, and what this page adds, in logs.

    `after`, `more` and `pending` are for the next order. `found`, and of these: `done`, got to
    their end; `left` to the workflow that has them; `empty`, without parts; `failed`. `failures`
    names the first of these.
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
    """How partitions are kept; see the settings of the same names."""

    interval: Literal["daily", "hourly"] = "daily"
    retention_seconds: float = 2 * 24 * 3600
    premake: int = 7
    lock_timeout_seconds: float = 0.2


@dataclass(frozen=True)
class DropOrder:
    """Drop this partition, if it is as old as the options say."""

    name: str
    options: PartitionOptions


@dataclass(frozen=True)
class Made:
    """The begins of partitions made, and of those that parts in the default partition prevent."""

    made: list[str] = field(default_factory=list)
    blocked: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Rescued:
    """How many parts were moved to a newer partition, and of how many logs."""

    parts: int = 0
    logs: int = 0

    def __add__(self, other: "Rescued") -> "Rescued":
        """Both together."""
        return Rescued(self.parts + other.parts, self.logs + other.logs)


@dataclass(frozen=True)
class Reached:
    """How far retention came through the logs of one policy: a time (ISO 8601) and a log's id."""

    at: str = ""
    id: int = 0


@dataclass(frozen=True)
class ExpireOrder:
    """Look at the next `logs` old logs; let go of the text of those that the policy is about."""

    policy: Policy
    after: Reached
    logs: int


@dataclass(frozen=True)
class ExpiredPage:
    """The jobs whose logs are to go, of the `looked` at; `bytes` is what they had of text.

    `held`: logs the policy is about that stay, under legal hold. `last` None: there are no more.
    """

    looked: int
    job_ids: list[int]
    bytes: int
    held: int
    last: Reached | None


@dataclass(frozen=True)
class DeleteOrder:
    """Delete the archived objects of these jobs, whose rows let go of them; `rows`: these too."""

    job_ids: list[int]
    rows: bool
