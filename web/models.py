"""The bodies of answers, as the wire contract names their fields; times are ISO 8601, UTC."""

from datetime import datetime

import msgspec

from domain import Log, Phase


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


class LifecycleBody(msgspec.Struct, kw_only=True):
    """Where a log is in its life: the row's times and what its workflow knows beyond them."""

    type: str = msgspec.field(name="@type", default="lifecycle")
    id: int
    job_id: int
    phase: Phase
    parts: int | None
    bytes: int | None
    missing_parts: int | None
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
    workflow_id: str
    run_id: str | None
    temporal_ui_url: str | None


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


class ErrorBody(msgspec.Struct):
    """What is wrong, in one line for a person."""

    error: str


class SubscriptionBody(msgspec.Struct):
    """The signature that lets a subscriber into a private channel."""

    auth: str
