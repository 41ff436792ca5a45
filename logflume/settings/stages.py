"""Settings of the pipeline: drain, lifecycle, sweep, partitions, retention, worker and web."""

from datetime import timedelta
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, IPvAnyNetwork, SecretStr, model_validator

from logflume.domain import MAX_LOG_BYTES
from logflume.settings.group import MIB, Group


class DrainSettings(Group):
    """The drain: batches, flushes and signals."""

    prefetch: int = Field(
        8000, ge=1, le=65535, description="maximum unacknowledged messages; lowered automatically "
        "while messages are large"
    )  # fmt: skip
    held_bytes: int = Field(
        64 * MIB, ge=1, description="maximum bytes of unacknowledged messages; a larger message "
        "is held alone. The drain's memory grows by about twice this value"
    )  # fmt: skip
    batch_parts: int = Field(2000, ge=1, description="parts after which a batch is flushed")
    batch_bytes: int = Field(4 * MIB, ge=1, description="bytes after which a batch is flushed")
    batch_seconds: float = Field(
        0.02, gt=0, le=60, description="seconds after its first part when a batch is flushed"
    )
    flushes: int = Field(
        3, ge=1, le=64, description="concurrent flushes; each uses one connection to Postgres"
    )
    signal_seconds: float = Field(
        15, ge=0, description="minimum seconds between two signals to one log's workflow, except "
        "for an attempt's first batch and its final part"
    )  # fmt: skip
    signals_in_flight: int = Field(32, ge=1, description="concurrent signals to Temporal")
    invalid_share: float = Field(
        0.5, gt=0, le=1, description="share of invalid messages among the last `INVALID_WINDOW` "
        "above which the drain stops consuming; 1: it never does"
    )  # fmt: skip
    invalid_window: int = Field(
        1000, ge=1, description="number of recent messages in which the invalid ones are counted"
    )
    suspend_seconds: float = Field(
        600, gt=0, description="seconds after which the drain consumes again by itself; "
        "`logflume rejected resume` ends the suspension earlier"
    )  # fmt: skip

    @model_validator(mode="after")
    def _prefetch_covers_a_batch(self) -> Self:
        if self.prefetch < self.batch_parts:
            raise ValueError(
                f"prefetch {self.prefetch} is less than batch_parts {self.batch_parts}, "
                "so batches never fill; raise prefetch or lower batch_parts"
            )
        return self


class LifecycleSettings(Group):
    """Timers and limits of a log's lifecycle, passed in the workflow's input."""

    settle_seconds: float = Field(
        10, ge=0, description="settle time: seconds to wait after the final part"
    )
    idle_timeout_seconds: float = Field(
        3 * 3600, gt=0, description="idle timeout: seconds without a part after which a log is "
        "considered complete"
    )  # fmt: skip
    gap_seconds: float = Field(
        30, ge=0, description="gap grace period: seconds to wait for late parts if numbers are "
        "missing"
    )  # fmt: skip
    purge_seconds: float = Field(
        6 * 3600, ge=0, description="seconds from verification until the content is purged"
    )
    archive_tries: int = Field(
        10, ge=1, le=100, description="attempts to archive and verify before a log is stuck"
    )
    archive_backoff_seconds: float = Field(
        30, gt=0, description="seconds before the first retry; doubles each time, up to an hour"
    )
    history_events: int = Field(
        4000, ge=50, le=40_000, description="history events after which a workflow continues as new"
    )
    max_log_bytes: int = Field(
        MAX_LOG_BYTES,
        ge=1000,
        le=MAX_LOG_BYTES,
        description="maximum content of a log, in bytes; longer content is truncated and ends with "
        "a line that says so. Postgres may use six times as much memory to aggregate one log",
    )


class SweepSettings(Group):
    """The sweep for orphaned logs. Run `logflume schedules apply` after a change."""

    every_seconds: float = Field(60, ge=10, description="seconds between two sweeps")
    after_seconds: float = Field(
        600, gt=0, description="seconds without a write after which a sweep checks a log"
    )
    logs: int = Field(500, ge=1, le=100_000, description="maximum logs per sweep")


class PartitionSettings(Group):
    """The partitions of parts. Run `logflume schedules apply` after a change."""

    interval: Literal["daily", "hourly"] = Field(
        "daily",
        description="period covered by one partition; a change takes effect after the existing "
        "partitions",
    )
    retention_seconds: float = Field(
        2 * 24 * 3600,
        ge=3600,
        description="age in seconds at which a partition is dropped; parts of logs not yet "
        "archived, verified and purged move to a newer partition, so keep it well above "
        "`LOGFLUME_LIFECYCLE__PURGE_SECONDS`",
    )
    premake: int = Field(
        7,
        ge=1,
        le=200,
        description="partitions to create ahead of the current one; they must last until the next "
        "maintenance run",
    )
    lock_timeout_seconds: float = Field(
        0.2,
        ge=0.01,
        lt=1,  # Postgres's deadlock_timeout, after which it would cancel a writer
        description="seconds that maintenance, and writers queued behind it, wait for a lock "
        "before it gives up and retries later",
    )


class RetentionPolicy(Group):
    """Which logs to delete, and which part of them."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,39}$")
    older_than_days: int = Field(ge=1, le=36_500)
    delete: Literal["archive", "row"]
    state: Literal["done", "removed", "empty"] = "done"
    larger_than_bytes: int | None = Field(None, ge=0)

    @model_validator(mode="after")
    def _empty_logs_have_rows_only(self) -> Self:
        if self.state == "empty" and (self.delete, self.larger_than_bytes) != ("row", None):
            raise ValueError(
                f"policy {self.name}: an empty log has no text, only a row: set "
                '"delete": "row" and omit larger_than_bytes'
            )
        return self


class RetentionSettings(Group):
    """Expiry of finished logs; off by default. Run `logflume schedules apply` after a change."""

    policies: tuple[RetentionPolicy, ...] = Field(
        (),
        description='JSON: `[{"name": "old", "older_than_days": 365, "delete": "archive"}]`; '
        "[retention](retention.md) describes all fields",
    )
    logs: int = Field(10_000, ge=1, le=100_000, description="maximum logs per policy and run")

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        names = [policy.name for policy in self.policies]
        if doubled := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"two policies are named {doubled.pop()}: rename one of them")
        return self


class WorkerSettings(Group):
    """The Temporal worker."""

    workflow_cache: int = Field(1000, ge=1, description="workflows cached in memory")
    activities: int = Field(16, ge=1, description="concurrent database activities")
    archive_activities: int = Field(
        8, ge=1, description="concurrent archive activities; each holds one slice in memory"
    )
    shutdown_seconds: float = Field(
        20, ge=0, description="seconds that running activities have to finish at shutdown"
    )
    deployment: str = Field(
        "logflume",
        pattern=r"^[^.:]+$",
        description="name of the Worker Deployment to which `build_id` belongs",
    )
    build_id: str | None = Field(
        None,
        min_length=1,
        max_length=255,
        description="version of the code, e.g. the image's tag: workflows then move to this "
        "version only through `temporal worker deployment` (docs/upgrading.md); unset: a worker "
        "takes any task in its queue, unless a version was made current",
    )

    @property
    def shutdown(self) -> timedelta:
        """`shutdown_seconds` as a timedelta."""
        return timedelta(seconds=self.shutdown_seconds)


class WebSettings(Group):
    """The HTTP service."""

    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8080, ge=1, le=65535, description="port to listen on")
    url: str = Field("", description="public base URL of the service, for links")
    tls_cert_file: Path | None = Field(
        None,
        description="PEM file of the server certificate and its intermediate certificates; unset: "
        "no TLS, for use behind a proxy that terminates it",
    )
    tls_key_file: Path | None = Field(None, description="PEM file of its private key")
    auth_token: SecretStr | None = Field(
        None,
        min_length=16,
        description="bearer token of API callers, at least 16 characters; unset: every request "
        "that requires it is refused",
    )
    jwt_public_key: str | None = Field(
        None,
        description="RSA public key (PEM) that verifies the runners' tokens (JWT, RS512); unset: "
        "runners' routes accept only `auth_token`",
    )
    jwt_private_key: SecretStr | None = Field(
        None,
        description="RSA private key (PEM) with which `logflume token` signs such tokens; set it "
        "only where that command runs",
    )
    link_secret: SecretStr | None = Field(
        None,
        min_length=32,
        description="secret that signs links to single logs (`logflume share`), at least 32 "
        "characters; unset: such links are disabled",
    )
    public_reads: bool = Field(default=False, description="allow reading logs without a token")
    trusted_proxies: tuple[IPvAnyNetwork, ...] = Field(
        (),
        description='addresses or networks of the proxies in front, as JSON: `["10.0.0.0/8"]`; '
        "their `X-Forwarded-For` names the client, whose share of searches is limited",
    )
    cors_origins: tuple[str, ...] = Field(
        (), description='allowed CORS origins, as JSON: `["https://ci.example"]`'
    )
    max_body_bytes: int = Field(
        64 * MIB, ge=1024, le=512 * MIB, description="maximum request body, in bytes"
    )

    @model_validator(mode="after")
    def _certificates_have_keys(self) -> Self:
        if (self.tls_cert_file is None) != (self.tls_key_file is None):
            raise ValueError("tls_cert_file and tls_key_file belong together: set both or neither")
        return self
