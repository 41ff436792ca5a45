"""Names and types that others need to start, signal and ask the workflows."""

from dataclasses import dataclass, field
from typing import Literal

from temporalio.common import SearchAttributeKey

from activities.types import Failure, Followed, Reached
from logflume.domain import MAX_LOG_BYTES, Phase, Policy

LIFECYCLE = "LogLifecycle"
PARTS_STORED = "parts_stored"
CONTENT_REPLACED = "content_replaced"
ARCHIVE_AGAIN = "archive_again"
LIFECYCLE_QUERY = "lifecycle"
SWEEP = "Sweep"
BACKFILL = "Backfill"
# One at a time: its bounds are those of the whole system.
BACKFILL_ID = "backfill"
PAUSE = "pause"
RESUME = "resume"
PROGRESS_QUERY = "progress"
# Started with `PartitionOptions`.
PARTITION_MAINTENANCE = "PartitionMaintenance"
PARTITION_MAINTENANCE_ID = "partition-maintenance"
RETENTION = "Retention"
RETENTION_ID = "retention"

LOG_PHASE = SearchAttributeKey.for_keyword("LogPhase")
JOB_ID = SearchAttributeKey.for_int("JobId")
PARTITION_STATE = SearchAttributeKey.for_keyword("PartitionState")


def workflow_id(job_id: int) -> str:
    """The id of the one workflow of a job's log."""
    return f"log-{job_id}"


def job_of(workflow_id: str) -> int | None:
    """The job whose log a workflow with this id is of; None where it is no log's."""
    prefix, _, digits = workflow_id.partition("-")
    return int(digits) if prefix == "log" and digits.isdecimal() else None


@dataclass(frozen=True)
class Batch:
    """What one or several committed batches added to a log; the signal `parts_stored`.

    `begun`: an attempt began in them. `final`: a final part was in them. Both are hints that may
    come late or twice; what holds is in the database.
    """

    parts: int
    bytes: int
    final: bool = False
    begun: bool = False

    def __add__(self, other: "Batch") -> "Batch":
        """Both in one: what a drain held back and what it adds."""
        return Batch(
            self.parts + other.parts,
            self.bytes + other.bytes,
            self.final or other.final,
            self.begun or other.begun,
        )


@dataclass(frozen=True)
class LifecycleOptions:
    """Times in seconds and limits of a log's life; see the settings of the same names."""

    settle_seconds: float = 10
    silence_seconds: float = 3 * 3600
    gap_seconds: float = 30
    purge_seconds: float = 6 * 3600
    archive_tries: int = 10
    archive_backoff_seconds: float = 30
    history_events: int = 4000
    max_log_bytes: int = MAX_LOG_BYTES


@dataclass
class LifecycleState:
    """What a log's workflow knows; carried over when it continues as new.

    `parts` and `bytes` are what signals told until aggregation counts them. `begun`: whether the
    run knows how its log began. `ended`: the log may have ended. `news`: signals came since the
    last aggregation. `tries`: to archive, since the last that succeeded or the log was stuck.
    `verified_at`: seconds since the epoch.
    """

    phase: Phase = "receiving"
    parts: int = 0
    bytes: int = 0
    missing_parts: int = 0
    left_out_bytes: int = 0
    stale_parts: int = 0
    attempt: str = ""
    archive_attempts: int = 0
    tries: int = 0
    last_error: str = ""
    begun: bool = False
    ended: bool = False
    news: bool = False
    replaced: bool = False
    again: bool = False
    gaps_waited: bool = False
    heard_at: float = 0
    verified_at: float = 0


@dataclass(frozen=True)
class LifecycleInput:
    """Start of a log's workflow; `state` only when it continues as new."""

    job_id: int
    options: LifecycleOptions = field(default_factory=LifecycleOptions)
    state: LifecycleState | None = None


@dataclass(frozen=True)
class Lifecycle:
    """The answer to the query `lifecycle`."""

    phase: Phase
    parts: int
    bytes: int
    missing_parts: int
    stale_parts: int
    attempt: str
    archive_attempts: int
    last_error: str


@dataclass(frozen=True)
class Outcome:
    """How a log's life ended: what lies in the archive, nothing where `parts` is 0."""

    sha256: str
    bytes: int
    parts: int
    missing_parts: int
    archive_attempts: int


@dataclass(frozen=True)
class SweepInput:
    """Start of a sweep; see the settings of the same names.

    `purge_seconds` is the one of a log's life: a verified log waits for that long.
    """

    after_seconds: float = 600
    purge_seconds: float = 6 * 3600
    logs: int = 500


@dataclass(frozen=True)
class Swept:
    """What a sweep did, counted in logs; the counts are those of `SweepPage`.

    `pages`: in which they were found. `after`: the id after which the next sweep begins.
    """

    found: int = 0
    running: int = 0
    started: int = 0
    told: int = 0
    emptied: int = 0
    failed: int = 0
    pages: int = 0
    after: int = 0


@dataclass
class BackfillProgress:
    """How far a backfill is, in logs; at the end its result.

    The counts are those of `BackfillPage`; `under_way` are waited for. `failures` names the first
    of those that failed.
    """

    found: int = 0
    done: int = 0
    left: int = 0
    empty: int = 0
    failed: int = 0
    under_way: int = 0
    paused: bool = False
    failures: list[Failure] = field(default_factory=list)


@dataclass
class BackfillState:
    """What a backfill knows; carried over when it continues as new.

    `ranges`: from and up to these job ids, what is left of them. `after`, `more` and `pending` are
    those of `BackfillPage`.
    """

    ranges: list[tuple[int, int]] = field(default_factory=list)
    after: int = -1
    more: bool = True
    pending: list[Followed] = field(default_factory=list)
    progress: BackfillProgress = field(default_factory=BackfillProgress)


@dataclass(frozen=True)
class BackfillInput:
    """Start of a backfill: `jobs`, ids such as 42 and ranges such as "1000-2000", or a `kind`.

    At most `concurrency` logs are under way at once and `rate` a second are begun. A log that is
    not at its end after `limit_seconds` failed. `quiet_seconds` and `purge_seconds` are those of
    the sweep. `pages`: of work before it continues as new; `state` only then.
    """

    jobs: list[int | str] = field(default_factory=list)
    kind: str = ""
    concurrency: int = 100
    rate: int = 20
    limit_seconds: float = 600
    quiet_seconds: float = 600
    purge_seconds: float = 6 * 3600
    pages: int = 200
    state: BackfillState | None = None


@dataclass
class MaintenanceReport:
    """What one maintenance of the partitions did.

    `made`: the begins of new partitions. `dropped` and `left`: names of expired ones that are gone,
    and of those still there. `rescued_parts` were moved to a newer partition, of `rescued_logs`.
    `errors`: what went wrong and is tried again next time.
    """

    made: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    rescued_parts: int = 0
    rescued_logs: int = 0
    errors: list[str] = field(default_factory=list)

    @property
    def state(self) -> Literal["clean", "rescued", "left"]:
        """What there is to be seen: nothing, logs unarchived for too long, or work left undone."""
        if self.left or self.errors:
            return "left"
        return "rescued" if self.rescued_logs else "clean"


@dataclass(frozen=True)
class RetentionInput:
    """Start of a round of retention; `logs`: most that each policy looks at."""

    policies: list[Policy]
    logs: int = 10_000


@dataclass
class PolicyReport:
    """What one policy did in a round, counted in logs; `bytes` is the text that went.

    `held`: left alone, under legal hold. `rows`: deleted altogether. `after`: where the next round
    goes on. `error`: why this one stopped early.
    """

    policy: str
    looked: int = 0
    logs: int = 0
    bytes: int = 0
    rows: int = 0
    held: int = 0
    after: Reached = field(default_factory=Reached)
    error: str = ""


@dataclass
class Retained:
    """What a round of retention did, by policy."""

    policies: list[PolicyReport] = field(default_factory=list)
