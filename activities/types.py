"""Names, inputs and results of the activities: all that a workflow knows of them."""

from dataclasses import dataclass

AGGREGATE = "aggregate"
ARCHIVE = "archive"
VERIFY = "verify"
PURGE = "purge"
DELETE_ARCHIVE = "delete_archive"


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
