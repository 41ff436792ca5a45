"""Names and types of a log's lifecycle, for its workflow and for those that signal and query it."""

from dataclasses import dataclass

from temporalio.common import SearchAttributeKey

from logflume.domain import Phase

LIFECYCLE = "LogLifecycle"
PARTS_STORED = "parts_stored"
CONTENT_REPLACED = "content_replaced"
ARCHIVE_AGAIN = "archive_again"
LIFECYCLE_QUERY = "lifecycle"

LOG_PHASE = SearchAttributeKey.for_keyword("LogPhase")
JOB_ID = SearchAttributeKey.for_int("JobId")


def workflow_id(job_id: int) -> str:
    """The id of the one workflow of a job's log."""
    return f"log-{job_id}"


def job_of(workflow_id: str) -> int | None:
    """The job id in a workflow id; None if the workflow is not a log's lifecycle."""
    prefix, _, digits = workflow_id.partition("-")
    return int(digits) if prefix == "log" and digits.isdecimal() else None


@dataclass(frozen=True)
class PartsStored:
    """The argument of the signal `parts_stored`: what committed batches added to a log.

    `begun`: they hold the first part of an attempt. `final`: they hold a final part. Both are
    hints that may be late or duplicated; the database is authoritative.
    """

    parts: int
    bytes: int
    final: bool = False
    begun: bool = False

    def __add__(self, other: "PartsStored") -> "PartsStored":
        """Coalesce two signals into one."""
        return PartsStored(
            self.parts + other.parts,
            self.bytes + other.bytes,
            self.final or other.final,
            self.begun or other.begun,
        )

    @property
    def is_urgent(self) -> bool:
        """Whether the signal must not wait: a timer of the lifecycle depends on it."""
        return self.begun or self.final


@dataclass(frozen=True)
class LifecycleOptions:
    """Limits, and times in seconds; see the settings `LOGFLUME_LIFECYCLE__*`."""

    settle_seconds: float
    idle_timeout_seconds: float
    gap_seconds: float
    purge_seconds: float
    archive_tries: int
    archive_backoff_seconds: float
    history_events: int
    max_log_bytes: int


@dataclass
class LifecycleState:
    """The state of a log's workflow; carried over when it continues as new.

    `parts` and `bytes` are sums of signals until aggregation counts them. `begun`: this run saw
    its log begin. `ended`: the log may have ended. `changed`: signals arrived since the last
    aggregation. `replaced`: content was written as a whole. `reaggregate`: rebuild the content
    from its parts even if it is archived. `gap_grace_over`: the gap grace period has been used.
    `tries`: tries of an archive activity since its last success or since the log was stuck.
    `retries_stuck`: a stuck log is tried again without a signal. `last_signal_at` and
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
    retries_stuck: bool = False
    last_error: str = ""
    begun: bool = False
    ended: bool = False
    changed: bool = False
    replaced: bool = False
    reaggregate: bool = False
    gap_grace_over: bool = False
    last_signal_at: float = 0
    verified_at: float = 0

    @property
    def summary(self) -> str:
        """The state as Markdown, for the Temporal UI."""
        text = f"**{self.phase}**: {self.parts} parts, {self.bytes} bytes"
        if self.missing_parts:
            text += f", {self.missing_parts} parts missing"
        if self.left_out_bytes:
            text += f", {self.left_out_bytes} bytes cut off: the log is too long"
        if self.last_error:
            text += f"\n\nArchive attempt {self.archive_attempts}: {self.last_error}"
        return text

    @property
    def public(self) -> "Lifecycle":
        """The answer to the query."""
        return Lifecycle(
            phase=self.phase,
            parts=self.parts,
            bytes=self.bytes,
            missing_parts=self.missing_parts,
            stale_parts=self.stale_parts,
            attempt=self.attempt,
            archive_attempts=self.archive_attempts,
            last_error=self.last_error,
        )


@dataclass(frozen=True)
class LifecycleInput:
    """Input of a log's workflow; `state` is set when it continues as new or starts midway."""

    job_id: int
    options: LifecycleOptions
    state: LifecycleState | None = None


@dataclass(frozen=True)
class Lifecycle:
    """The answer to the query `lifecycle`."""

    phase: Phase
    parts: int = 0
    bytes: int = 0
    missing_parts: int = 0
    stale_parts: int = 0
    attempt: str = ""
    archive_attempts: int = 0
    last_error: str = ""


@dataclass(frozen=True)
class Outcome:
    """Result of a log's workflow: what the archive holds; nothing if `parts` is 0."""

    sha256: str
    bytes: int
    parts: int
    missing_parts: int
    archive_attempts: int
