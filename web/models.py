"""The bodies of requests and responses, by the wire contract; times are ISO 8601 in UTC."""

from datetime import datetime

import msgspec
from litestar.openapi.datastructures import ResponseSpec

from logflume.domain import Attempt, Log, Phase, Total


class ErrorBody(msgspec.Struct):
    """Why a request was rejected or failed; names the invalid field."""

    error: str


_MEANINGS = {
    400: "invalid request; the error names the field",
    401: "missing or invalid signature",
    403: "missing or invalid token",
    404: "no such log",
    409: "the archived object is in a cold storage class",
    410: "the text was deleted by a retention policy, or the archived object is missing",
    413: "the body is too large",
    415: "the body has a `Content-Encoding`",
    416: "the range starts after the last byte",
    423: "the log is under legal hold",
    500: "a required setting is missing, or an internal error",
    502: "the archived object is not the log, or the store refuses to return it",
    503: "temporarily unavailable; retry after the time in `Retry-After`",
}


def errors(*statuses: int) -> dict[int, ResponseSpec]:
    """The error responses of a route for the OpenAPI document; 503 is always included."""
    return {
        status: ResponseSpec(ErrorBody, generate_examples=False, description=_MEANINGS[status])
        for status in (*statuses, 503)
    }


class LogBody(msgspec.Struct, kw_only=True):
    """A log, as travis-api reads it; `content` is decoded as UTF-8 with replacement.

    `complete`: whether it is byte for byte what its sender announced; null if it announced nothing.
    """

    type: str = msgspec.field(name="@type", default="log")
    id: int
    job_id: int
    content: str | None
    created_at: datetime
    updated_at: datetime
    aggregated_at: datetime | None
    archived_at: datetime | None
    archive_verified: bool
    archiving: bool
    purged_at: datetime | None
    removed_at: datetime | None
    removed_by_id: int | None
    complete: bool | None


def log_body(log: Log, content: bytes | None) -> LogBody:
    """Make the JSON of a log from its row and content."""
    return LogBody(
        id=log.id,
        job_id=log.job_id,
        content=None if content is None else content.decode("utf-8", "replace"),
        created_at=log.created_at,
        updated_at=log.updated_at,
        aggregated_at=log.aggregated_at,
        archived_at=log.archived_at,
        archive_verified=log.archive_verified,
        archiving=log.archiving,
        purged_at=log.purged_at,
        removed_at=log.removed_at,
        removed_by_id=log.removed_by,
        complete=log.complete,
    )


class LogIdBody(msgspec.Struct, kw_only=True):
    """The id of a log, as opposed to the id of its job."""

    id: int
    type: str = msgspec.field(name="@type", default="log")


class LogToWrite(msgspec.Struct):
    """The whole content of one log."""

    job_id: int | str
    content: str | None = None
    removed_by: int | None = None


class PartToStore(msgspec.Struct):
    """A part as sent by a runner; `content` is base64; `total` may be on a final part."""

    type: str = msgspec.field(name="@type")
    content: str
    encoding: str
    final: bool | None = None
    total: Total | None = None


class PartOfMany(PartToStore, kw_only=True):
    """A part with its job, number and the runner's token for the job (`tok`)."""

    job_id: int | str
    number: int | str
    tok: str | None = None


class PartBody(msgspec.Struct):
    """A stored part; `content` is decoded with replacement, and absent if not requested."""

    id: int
    number: int
    final: bool
    content: str | msgspec.UnsetType = msgspec.UNSET


class PartsBody(msgspec.Struct):
    """Parts of a log, by number."""

    job_id: int
    log_parts: list[PartBody]
    type: str = msgspec.field(name="@type", default="log_parts")


class AttemptBody(msgspec.Struct):
    """An attempt: the parts of one run of the job; `is_log`: it is the log that readers see."""

    uuid: str
    began_at: datetime | None
    closed_at: datetime | None
    stale_parts: int
    is_log: bool


class ListedLog(msgspec.Struct, kw_only=True):
    """A log in a list."""

    id: int
    job_id: int
    phase: Phase
    bytes: int | None
    parts: int | None
    created_at: datetime
    updated_at: datetime
    removed_at: datetime | None


class ListBody(msgspec.Struct, kw_only=True):
    """Logs, newest first; pass `next` as `before` to get the next page."""

    type: str = msgspec.field(name="@type", default="logs")
    logs: list[ListedLog]
    next: int | None


class OutlineBody(msgspec.Struct, kw_only=True):
    """Positions of lines and markers in a log.

    `newlines[i]` counts the line feeds in the first `i * block_bytes` bytes. `marks` are markers of
    folds and times (see `logflume/markers.py`) as `[byte, line from 0, text]`; `bare_lines`, from
    0, contain only markers; `error_lines`, from 0, are the first 1,000 that report errors.
    `cursor` is where `/stream` continues after these bytes; `ended`: it has no more events.
    """

    type: str = msgspec.field(name="@type", default="outline")
    job_id: int
    bytes: int
    lines: int
    block_bytes: int
    newlines: list[int]
    marks: list[list[int | str]]
    marks_truncated: bool
    bare_lines: list[int]
    error_lines: list[int]
    cursor: str
    ended: bool


class StepBody(msgspec.Struct, kw_only=True):
    """A timed step: `event` is its name, `fold` the fold it started in; either may be empty.

    `line`, from 0, is where it started; times are by the clock of the runner.
    """

    id: str
    event: str
    fold: str
    line: int
    started_at: datetime
    finished_at: datetime
    duration_ns: int


class TimingsBody(msgspec.Struct, kw_only=True):
    """The timed steps of a log; `ready`: the log was archived, verified and its steps read."""

    type: str = msgspec.field(name="@type", default="timings")
    job_id: int
    ready: bool
    steps: list[StepBody]


class SearchBody(msgspec.Struct, kw_only=True):
    """Lines, from 0, that contain a text: `count` is the total.

    `lines` lists at most 10,000 of them around `near`; `first` is the index of the first of these
    in all. A search of what follows starts at `next_byte`, where line `next_line` starts; both are
    counted from the start of the log.
    """

    type: str = msgspec.field(name="@type", default="search")
    count: int
    lines: list[int]
    first: int
    truncated: bool
    next_byte: int
    next_line: int


class LifecycleBody(msgspec.Struct, kw_only=True):
    """The lifecycle of a log: the timestamps of its row and the state of its workflow."""

    type: str = msgspec.field(name="@type", default="lifecycle")
    id: int
    job_id: int
    phase: Phase
    parts: int | None
    bytes: int | None
    missing_parts: int | None
    complete: bool | None
    left_out_bytes: int | None
    stale_parts: int
    attempt: str
    archive_attempts: int
    last_error: str
    created_at: datetime
    updated_at: datetime
    aggregated_at: datetime | None
    archived_at: datetime | None
    archive_verified: bool
    purged_at: datetime | None
    removed_at: datetime | None
    expired_at: datetime | None
    workflow_id: str
    run_id: str | None
    temporal_ui_url: str | None
    attempts: list[AttemptBody]


def attempt_bodies(attempts: list[Attempt]) -> list[AttemptBody]:
    """Make the JSON of attempts."""
    return [AttemptBody(a.uuid, a.began_at, a.closed_at, a.stale_parts, a.is_log) for a in attempts]


class UptimeBody(msgspec.Struct):
    """The uptime in seconds, with a greeting."""

    uptime: int
    greeting: str
    pong: str
    now: datetime
    version: str


class HealthBody(msgspec.Struct):
    """The status of each dependency: `ok`, or its error."""

    status: str
    dependencies: dict[str, str]


class SubscriptionBody(msgspec.Struct):
    """The signature of a subscription to a private channel."""

    auth: str
