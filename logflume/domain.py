"""The domain types, named as in the wire contract.

A *part* is one message of a job's output, an *attempt* the parts of one run of the job, a *batch*
what the drain commits in one transaction, a *log* what a reader sees.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Literal, Self
from urllib.parse import quote, unquote_to_bytes

import msgspec

# The number of `"last"` parts, which come after every numbered part; `number_last()` in SQL.
LAST = 2_147_483_647
# The number of content written whole, which comes before every part; `number_whole()` in SQL.
WHOLE = -1
# The longest content of a log, in bytes; a value in Postgres must be smaller than 1 GiB.
MAX_LOG_BYTES = 1_000_000_000
# Postgres and Temporal both use signed 64-bit integers.
MAX_JOB_ID = MAX_TOTAL_BYTES = 2**63 - 1
# The longest `Origin.text`; leaves space for an object's other metadata.
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


class Total(msgspec.Struct, frozen=True, gc=False):
    """What the sender of an attempt says with the final part: the sum of all numbered parts.

    `parts` includes the final part; `sha256` is hex, of the bytes in the order of the numbers.
    """

    parts: Annotated[int, msgspec.Meta(ge=1, le=LAST)]
    bytes: Annotated[int, msgspec.Meta(ge=0, le=MAX_TOTAL_BYTES)]
    sha256: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$", max_length=64)]


class Part(msgspec.Struct, frozen=True, gc=False):
    """One part of a job's log, as received.

    `attempt` is the run's uuid, `''` for parts without one. `published_at` is None if the message
    has no timestamp. `queued_at`: when the job was queued, in its first part. `total`: in its final
    part, from senders that prove what they sent.
    """

    job_id: int
    attempt: str
    number: int
    content: bytes
    final: bool
    published_at: datetime | None
    received_at: datetime
    queued_at: datetime | None = None
    total: Total | None = None


class StoredAttempt(msgspec.Struct, frozen=True, gc=False):
    """Where the parts of one attempt in a batch were stored.

    `is_open`: the attempt accepts parts (otherwise they were stale and only counted). `is_log`: the
    attempt is the log. `begun`: this batch began it. `moved`: this batch moved its begin, so that
    another attempt may be the log now. `occupied`: the job's Pusher channel is occupied.
    """

    log_id: int
    attempt_id: int
    is_open: bool
    is_log: bool
    begun: bool
    moved: bool
    occupied: bool


class StoredPart(msgspec.Struct, frozen=True, gc=False):
    """A part in the database; `WHOLE` as its number marks content written whole."""

    id: int
    number: int
    final: bool
    content: bytes


class Attempt(msgspec.Struct, frozen=True):
    """An attempt of a log; `is_log`: it is what readers see."""

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
    """Parts arrived after the aggregation: the content is incomplete."""
    step_count: int | None
    """Timed steps found in the content when it was verified; None: it was not searched."""
    expired_at: datetime | None
    """When retention deleted the text; None again once parts or content arrive."""
    complete: bool | None
    """Whether the content is what the sender announced with the final part; None if nothing."""
    left_out_bytes: int | None
    """Bytes that the content lacks because of the size limit; None if it is complete."""

    @property
    def phase(self) -> Phase:
        """The phase, as precisely as the row records it; the workflow knows finer phases."""
        if self.purged_at or self.expired_at:
            return "done"
        if self.archive_verified:
            return "verified"
        if self.archiving:
            return "archiving"
        return "aggregating" if self.aggregated_at else "receiving"


class Origin(msgspec.Struct, frozen=True, omit_defaults=True):
    """The row's state when its content was uploaded, stored as metadata of the archived object.

    `upload`: the number of the upload, from 1. `generation`: that of the row. `attempt`: the uuid
    of the attempt that was the log, which began at `began_at`; None if there was none. `runs`: the
    row's `content_runs`. The last three are in Postgres' text format, None if they are too long.
    """

    upload: int
    generation: int = 0
    attempt: str | None = None
    began_at: str | None = None
    runs: str | None = None

    @property
    def text(self) -> str:
        """The origin as ASCII text: an object's metadata may have 2 KB."""
        text = quote(msgspec.json.encode(self), safe='{}()":,')
        if len(text) <= ORIGIN_CHARACTERS:
            return text
        return Origin(self.upload, self.generation).text

    @classmethod
    def read(cls, text: str) -> Self:
        """Parse a `text`."""
        return msgspec.json.decode(unquote_to_bytes(text), type=cls)


@dataclass(frozen=True)
class Policy:
    """A retention policy: which logs are deleted, and when.

    `state`: `done` (archived and purged), `removed` (done, and a user removed its text) or `empty`
    (without text). The age counts from when the log reached that state. `delete`: `archive` deletes
    its text, `row` deletes everything. `larger_than_bytes`: None for any size.
    """

    name: str
    older_than_days: int
    delete: Literal["archive", "row"]
    state: Literal["done", "removed", "empty"] = "done"
    larger_than_bytes: int | None = None


@dataclass(frozen=True)
class Content:
    """The result of an aggregation; `sha256` is hex, sizes are bytes.

    `ended`: the log has its final part or was written whole. If not, and unless forced, nothing was
    aggregated and `sha256` is empty, as for a log without parts. `archived`: the archive already
    holds these bytes, verified; `purged`: and the row no longer does. `archive_outdated`: a
    deletion from the archive is pending. `needs_archived`: nothing was aggregated, because parts
    were dropped that only the archived object holds. `left_out_bytes`: bytes that the content lacks
    because of the size limit. `settles_seconds`: until no earlier request can change the archived
    object, which is then checked before the purge; None if no check is due. `complete`: as in
    `Log`.
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
    settles_seconds: float | None = None
    complete: bool | None = None
