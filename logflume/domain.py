"""The domain's types; imports nothing of ours but the errors.

Names are the wire contract's: a *part* is one message of a job's output, an *attempt* the parts of
one run of the job, a *batch* what the drain commits at once, a *log* what a reader sees.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Self
from urllib.parse import quote, unquote_to_bytes

import msgspec

# The number of a part that comes after every numbered one (`"last"` on the wire).
LAST = 2_147_483_647
# The number of content written whole, before every part.
WHOLE = -1
# The longest content of a log, in bytes; one value in Postgres has no place for 1 GiB.
MAX_LOG_BYTES = 1_000_000_000
# Postgres and Temporal both count in signed 64 bits.
MAX_JOB_ID = 2**63 - 1
# Leaves room for an object's other metadata.
ORIGIN_CHARACTERS = 1500

Phase = Literal[
    "receiving",
    "settling",
    "aggregating",
    "archiving",
    "verifying",
    "verified",
    "purging",
    "done",
    "stuck",
]


class Part(msgspec.Struct, frozen=True, gc=False):
    """One part of a job's log, as received.

    `attempt` is the run's uuid, `''` for parts without one; `published_at` is None where the
    publisher gave no time. `queued_at`, of a first part: when its job was queued.
    """

    job_id: int
    attempt: str
    number: int
    content: bytes
    final: bool
    published_at: datetime | None
    received_at: datetime
    queued_at: datetime | None = None


class StoredAttempt(msgspec.Struct, frozen=True, gc=False):
    """Where the parts of one attempt in a batch went.

    `is_open`: the attempt takes parts (else they were stale and only counted); `is_log`: it is the
    attempt that readers see; `begun`: this batch began it; `moved`: this batch moved its begin, so
    that another attempt may be the log now; `occupied`: somebody watches the job over Pusher.
    """

    log_id: int
    attempt_id: int
    is_open: bool
    is_log: bool
    begun: bool
    moved: bool
    occupied: bool


class StoredPart(msgspec.Struct, frozen=True, gc=False):
    """A part as it lies in the database; number -1 is content written whole."""

    id: int
    number: int
    final: bool
    content: bytes


class Attempt(msgspec.Struct, frozen=True):
    """One run of a job as its log heard of it; `is_log`: it is what readers see."""

    id: int
    uuid: str
    began_at: datetime | None
    closed_at: datetime | None
    stale_parts: int
    is_log: bool


class Log(msgspec.Struct, frozen=True):
    """A row of `logs` without its content; times are UTC, sizes bytes."""

    id: int
    job_id: int
    content_bytes: int | None
    content_sha256: str | None
    part_count: int | None
    missing_parts: int | None
    created_at: datetime
    updated_at: datetime
    aggregated_at: datetime | None
    archiving: bool
    archived_at: datetime | None
    archive_verified: bool
    purged_at: datetime | None
    removed_at: datetime | None
    removed_by: int | None
    generation: int
    """How often content was written whole."""
    late_parts: bool
    """Parts came after the aggregation: the content is not all of the log."""
    step_count: int | None
    """Timed steps that were read from the content when it was verified; None: nobody looked."""
    expired_at: datetime | None
    """When retention deleted its text; None again once it gets parts or content."""
    left_out_bytes: int | None
    """Bytes that the content lacks because it would be too long with them; None: it lacks none."""

    @property
    def phase(self) -> Phase:
        """The phase as far as the row alone tells it; the workflow knows it finer."""
        if self.purged_at or self.expired_at:
            return "done"
        if self.archive_verified:
            return "verified"
        if self.archiving:
            return "archiving"
        return "aggregating" if self.aggregated_at else "receiving"


class Origin(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a row knew of the content that it sent to the archive; the object carries it.

    `upload`: which of the log's uploads it was, from 1 on. `generation`: that of the row. The run
    `attempt`, which began at `began_at`, was the log; None where no run was. `runs`: the row's own
    column. The last three are as Postgres writes them, and None where they are too long to carry.
    """

    upload: int
    generation: int = 0
    attempt: str | None = None
    began_at: str | None = None
    runs: str | None = None

    @property
    def text(self) -> str:
        """It as plain characters, of which an object's metadata may have 2 KB."""
        text = quote(msgspec.json.encode(self), safe='{}()":,')
        if len(text) <= ORIGIN_CHARACTERS:
            return text
        return Origin(self.upload, self.generation).text

    @classmethod
    def read(cls, text: str) -> Self:
        """Read what `text` gave."""
        return msgspec.json.decode(unquote_to_bytes(text), type=cls)


@dataclass(frozen=True)
class Policy:
    """When retention deletes logs, and what of them.

    `state`: `done`, archived and purged; `removed`, such a one whose text a person removed;
    `empty`, without text. Age counts from when the log came to that. `delete`: `archive`, its text;
    `row`, all there is of it. `larger_than_bytes` None: of any size.
    """

    name: str
    older_than_days: int
    delete: Literal["archive", "row"]
    state: Literal["done", "removed", "empty"] = "done"
    larger_than_bytes: int | None = None


@dataclass(frozen=True)
class Content:
    """What aggregation found and made of a log; `sha256` is hex, sizes are bytes.

    `ended`: the log has its final part or was written whole. Without it and unforced nothing was
    aggregated and `sha256` is empty, as for a log without any part. `archived`: the archive
    already holds these very bytes, verified; `purged`: and the row has let go of its copy.
    `archive_outdated`: it holds what was there before content was written whole. `needs_archived`:
    nothing was made yet, for parts are gone that only the archived object holds. `left_out_bytes`:
    what the content lacks because it would be too long with it.
    """

    ended: bool = False
    sha256: str = ""
    bytes: int = 0
    parts: int = 0
    missing_parts: int = 0
    stale_parts: int = 0
    attempt: str = ""
    archived: bool = False
    purged: bool = False
    archive_outdated: bool = False
    needs_archived: bool = False
    left_out_bytes: int = 0
