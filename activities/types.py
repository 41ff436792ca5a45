"""Names, inputs and results of the activities: all that a workflow knows of them."""

from dataclasses import dataclass

AGGREGATE = "aggregate"
ARCHIVE = "archive"
VERIFY = "verify"
PURGE = "purge"
DELETE_ARCHIVE = "delete_archive"
SWEEP_PAGE = "sweep_page"


def archive_queue(task_queue: str) -> str:
    """The task queue of archive work, beside that of workflows and database activities."""
    return f"{task_queue}-archive"


@dataclass(frozen=True)
class AggregateOrder:
    """Make a log's content of its parts.

    `force`: even if the log has not ended. `restore`: make it anew even if it is archived.
    """

    job_id: int
    force: bool = False
    restore: bool = False


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
    content was written whole. `emptied`: without parts, not looked at again until some come.
    `failed`: left to the next round. `after`: the id of the last one; 0: there are no more.
    """

    found: int = 0
    running: int = 0
    started: int = 0
    told: int = 0
    emptied: int = 0
    failed: int = 0
    after: int = 0
