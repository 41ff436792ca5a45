"""The bodies of answers, as the wire contract names their fields; times are ISO 8601, UTC."""

from datetime import datetime

import msgspec
from litestar.openapi.datastructures import ResponseSpec

from logflume.domain import Attempt, Log, Phase


class ErrorBody(msgspec.Struct):
    """Why a call was refused or failed; names the field where one is wrong."""

    error: str


_MEANINGS = {
    400: "something about the call is wrong; the text says what",
    401: "the signature is wrong",
    403: "the token is missing or wrong",
    404: "there is no such log",
    410: "the log's text is gone: its time was over, or its archived object was deleted",
    413: "the body is larger than the server takes",
    416: "the range begins behind the last byte",
    423: "the log is under legal hold: its text stays",
    500: "the server lacks a setting that this call needs",
    503: "a component is out of reach for now, see Retry-After",
}


def errors(*statuses: int) -> dict[int, ResponseSpec]:
    """Describe the refusals of a route for the OpenAPI document; any may answer 503."""
    return {
        status: ResponseSpec(ErrorBody, generate_examples=False, description=_MEANINGS[status])
        for status in (*statuses, 503)
    }


class LogBody(msgspec.Struct, kw_only=True):
    """A log as travis-api's model reads it; `content` is decoded with replacement."""

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


def log_body(log: Log, content: bytes | None) -> LogBody:
    """Make the answer of a row and the bytes it stands for."""
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
    )


class LogIdBody(msgspec.Struct, kw_only=True):
    """A log's own id."""

    id: int
    type: str = msgspec.field(name="@type", default="log")


class LogToWrite(msgspec.Struct):
    """A log's whole content, as one of many."""

    job_id: int | str
    content: str | None = None
    removed_by: int | None = None


class PartToStore(msgspec.Struct):
    """A part as a runner sends it over HTTP; `content` is base64."""

    type: str = msgspec.field(name="@type")
    content: str
    encoding: str
    final: bool | None = None


class PartOfMany(PartToStore, kw_only=True):
    """A part among others, with the token that its runner has for the job."""

    job_id: int | str
    number: int | str
    tok: str | None = None


class PartBody(msgspec.Struct):
    """A part of a log; text is decoded with replacement, and absent where it was not asked for."""

    id: int
    number: int
    final: bool
    content: str | msgspec.UnsetType = msgspec.UNSET


class PartsBody(msgspec.Struct):
    """Parts of a log, in the order of their numbers."""

    job_id: int
    log_parts: list[PartBody]
    type: str = msgspec.field(name="@type", default="log_parts")


class AttemptBody(msgspec.Struct):
    """One run of the job, as the log heard of it."""

    uuid: str
    began_at: datetime | None
    closed_at: datetime | None
    stale_parts: int
    is_log: bool


class ListedLog(msgspec.Struct, kw_only=True):
    """A log in a list, with as much as a list shows; size in bytes."""

    id: int
    job_id: int
    phase: Phase
    bytes: int | None
    parts: int | None
    created_at: datetime
    updated_at: datetime
    removed_at: datetime | None


class ListBody(msgspec.Struct, kw_only=True):
    """Logs, newest first; `next` is what `before` must be for those that follow."""

    type: str = msgspec.field(name="@type", default="logs")
    logs: list[ListedLog]
    next: int | None


class OutlineBody(msgspec.Struct, kw_only=True):
    """What a viewer needs to find its way in a log without reading it.

    `newlines[i]` counts the line feeds in the first `i * block_bytes` bytes. `marks` are fold and
    timing markers as `[byte, line from 0, text]`. `cursor` is where `/stream` goes on after these
    bytes; `ended`: it has no more to tell.
    """

    type: str = msgspec.field(name="@type", default="outline")
    job_id: int
    bytes: int
    lines: int
    block_bytes: int
    newlines: list[int]
    marks: list[list[int | str]]
    marks_truncated: bool
    cursor: str
    ended: bool


class StepBody(msgspec.Struct, kw_only=True):
    """A timed step of a job: `event` is the runner's name for it, `fold` the fold it began in.

    Either may be empty. `line`, from 0, is where it began; times are by the runner's clock.
    """

    id: str
    event: str
    fold: str
    line: int
    started_at: datetime
    finished_at: datetime
    duration_ns: int


class TimingsBody(msgspec.Struct, kw_only=True):
    """The timed steps of a log; `ready` false: they were not read yet, because it has not ended."""

    type: str = msgspec.field(name="@type", default="timings")
    job_id: int
    ready: bool
    steps: list[StepBody]


class SearchBody(msgspec.Struct, kw_only=True):
    """Lines, from 0, that contain a text; `count` counts them all, `lines` lists the first."""

    type: str = msgspec.field(name="@type", default="search")
    count: int
    lines: list[int]
    truncated: bool


class LifecycleBody(msgspec.Struct, kw_only=True):
    """Where a log is in its life: the row's times and what its workflow knows beyond them."""

    type: str = msgspec.field(name="@type", default="lifecycle")
    id: int
    job_id: int
    phase: Phase
    parts: int | None
    bytes: int | None
    missing_parts: int | None
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
    """Make the answer of a log's attempts."""
    return [AttemptBody(a.uuid, a.began_at, a.closed_at, a.stale_parts, a.is_log) for a in attempts]


class UptimeBody(msgspec.Struct):
    """A greeting for whoever asks whether the service is up; `uptime` in seconds."""

    uptime: int
    greeting: str
    pong: str
    now: datetime
    version: str


class HealthBody(msgspec.Struct):
    """Each dependency by name: `ok`, or what is wrong with it."""

    status: str
    dependencies: dict[str, str]


class SubscriptionBody(msgspec.Struct):
    """The signature that lets a subscriber into a private channel."""

    auth: str
