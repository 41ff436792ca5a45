"""The settings groups, one per component; every field states its unit."""

from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    field_validator,
    model_validator,
)

from logflume.domain import MAX_LOG_BYTES
from logflume.errors import SettingsError

MIB = 1024 * 1024


class Group(BaseModel):
    """Base of all groups: immutable, unknown names are an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


CA_FILE = (
    "PEM file of CA certificates to verify the server with; unset: the system's CA certificates"
)


def _one_per_host(url: str, scheme: str) -> list[str]:
    """The URL once for each host that it names; only URLs of Postgres may name several."""
    before, slashes, after = url.partition("//")
    place, slash, rest = after.partition("/")
    login, at, hosts = place.rpartition("@")
    if scheme != "postgresql":
        return [url]
    return [f"{before}{slashes}{login}{at}{host}{slash}{rest}" for host in hosts.split(",")]


def _url(*schemes: str) -> AfterValidator:
    """A validator for URLs of these schemes; errors do not quote the URL, as it holds secrets."""

    def check(url: SecretStr | str) -> SecretStr | str:
        text = url.get_secret_value() if isinstance(url, SecretStr) else url
        try:
            is_url = all(
                parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
                for parts in map(urlsplit, _one_per_host(text, schemes[0]))
            )
        except ValueError:
            is_url = False
        if not is_url:
            raise ValueError(
                f"not a URL of the form {schemes[0]}://user:password@host:port/; "
                "write / # ? @ and : in a password as %2F %23 %3F %40 and %3A"
            )
        return url

    return AfterValidator(check)


class AmqpSettings(Group):
    """RabbitMQ, the source of parts. The wire contract fixes the exchange and queue names."""

    url: Annotated[SecretStr, _url("amqp", "amqps")] = Field(
        SecretStr("amqp://localhost:5672/"),
        description="AMQP URL of RabbitMQ, with user and vhost; `amqps` uses TLS: append "
        "`?cafile=FILE` (and `&certfile=FILE&keyfile=FILE` for a client certificate)",
    )
    management_url: Annotated[SecretStr, _url("http", "https")] | None = Field(
        None,
        description="URL of RabbitMQ's management API, with a user tagged `policymaker`; required "
        "by `logflume drain --sharded`; with it, drain and doctor check the queues' limits",
    )


class DatabaseSettings(Group):
    """Postgres, which stores parts and logs."""

    url: Annotated[SecretStr, _url("postgresql", "postgres")] = Field(
        SecretStr("postgresql://localhost:5432/logflume"),
        description="Postgres URL, with the process's role as user; append "
        "`?sslmode=verify-full&sslrootcert=FILE` to require TLS and verify the server, and "
        "`&sslcert=FILE&sslkey=FILE` for a client certificate. Several hosts, "
        "`host1:5432,host2:5432`, with `?target_session_attrs=read-write`: the first one that can "
        "be written to",
    )
    direct_url: Annotated[SecretStr, _url("postgresql", "postgres")] | None = Field(
        None,
        description="URL that bypasses the pooler if `URL` points to one (PgBouncer, in "
        "transaction or session mode); used for LISTEN and to deploy the schema; unset: there is "
        "no pooler",
    )
    connections: int = Field(8, ge=1, le=500, description="maximum connections per process")
    idle_transaction_seconds: float = Field(
        15,
        ge=0,
        description="Postgres ends the session of a process that sends nothing for this long in a "
        "transaction, e.g. because it is frozen, and releases its locks; 0: no limit. Behind a "
        "pooler this and the following two are set by role (docs/security.md)",
    )
    transfer_idle_seconds: float = Field(
        600,
        ge=0,
        description="the same for transactions in which data comes from or goes to the archive or "
        "another database; they lock no log meanwhile",
    )
    unanswered_seconds: int = Field(
        20,
        ge=0,
        le=3600,
        description="both ends close a connection whose other end has not acknowledged data or "
        "keepalives for this long; 0: the defaults of the operating system (about two hours)",
    )

    @field_validator("url", "direct_url")
    @classmethod
    def _password_precedes_host(cls, url: SecretStr | None) -> SecretStr | None:
        # sqitch receives the query string as an argument, which other local users can see.
        if url and "password" in urlsplit(url.get_secret_value()).query:
            raise ValueError("put the password before the host: postgresql://user:password@host/")
        return url

    @property
    def direct(self) -> str:
        """The URL that bypasses the pooler."""
        return (self.direct_url or self.url).get_secret_value()


class TemporalSettings(Group):
    """The Temporal server."""

    address: str = Field("localhost:7233", description="host:port of the Temporal frontend")
    namespace: str = Field("default", description="Temporal namespace")
    task_queue: str = Field(
        "logflume",
        min_length=1,
        description="task queue of workflows and database activities; archive activities use "
        "this name with the suffix `-archive`",
    )
    ui_url: str = Field("", description="URL of the Temporal UI, for links; empty: no links")
    tls: bool = Field(default=False, description="connect to the frontend with TLS")
    ca_file: Path | None = Field(None, description=CA_FILE)
    cert_file: Path | None = Field(
        None, description="PEM file of the client certificate, if the server requires one"
    )
    key_file: Path | None = Field(None, description="PEM file of its private key")
    api_key: SecretStr | None = Field(
        None, min_length=1, description="API key, if the server requires one (Temporal Cloud)"
    )

    @model_validator(mode="after")
    def _credentials_require_tls(self) -> Self:
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("cert_file and key_file belong together: set both or neither")
        if not self.tls and (self.ca_file or self.cert_file or self.api_key):
            raise ValueError("ca_file, cert_file and api_key require TLS: set tls to true")
        return self


class S3Settings(Group):
    """The archive: an S3 bucket."""

    endpoint: Annotated[str, _url("http", "https")] | None = Field(
        None, description="URL of an S3-compatible store; unset: AWS"
    )
    ca_file: Path | None = Field(None, description=CA_FILE)
    region: str = Field("us-east-1", description="region of the bucket")
    access_key: str | None = Field(
        None, description="access key id; unset: the default AWS credential chain"
    )
    secret_key: SecretStr | None = Field(None, description="secret access key")
    bucket: str = Field("logflume-archive", min_length=3, description="name of the bucket")
    acl: str = Field(
        "private",
        description="canned ACL of archived objects; `none`: send no ACL, for buckets that refuse "
        "them (AWS: object ownership enforced by the bucket's owner)",
    )
    slice_bytes: int = Field(
        8 * MIB,
        ge=5 * MIB,
        le=64 * MIB,
        description="bytes read and sent at a time; larger logs use a multipart upload",
    )
    longest_request_seconds: float = Field(
        900, gt=0, description="seconds for which the store, or a proxy before it, may delay a "
        "request and still execute it: until then after a deletion, an archived object is checked "
        "again"
    )  # fmt: skip

    @field_validator("endpoint")
    @classmethod
    def _no_keys_in_the_url(cls, url: str | None) -> str | None:
        if url and "@" in url:
            raise ValueError("the URL must not contain keys: set ACCESS_KEY and SECRET_KEY")
        return url

    @model_validator(mode="after")
    def _keys_come_in_pairs(self) -> Self:
        if (self.access_key is None) != (self.secret_key is None):
            raise ValueError("access_key and secret_key belong together: set both or neither")
        return self


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
    link_secret: SecretStr | None = Field(
        None,
        min_length=32,
        description="secret that signs links to single logs (`logflume share`), at least 32 "
        "characters; unset: such links are disabled",
    )
    public_reads: bool = Field(default=False, description="allow reading logs without a token")
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


class PusherSettings(Group):
    """Pusher, or a server with its protocol, which sends parts to readers while a job runs."""

    app_id: str | None = Field(None, description="id of the app; unset: parts are not sent live")
    key: str | None = Field(None, min_length=1, description="key of the app, which is public")
    secret: Annotated[SecretStr, Field(min_length=1)] | None = Field(
        None, description="secret of the app; signs requests and verifies webhooks"
    )
    host: str = Field(
        "api.pusherapp.com",
        min_length=1,
        description="host of the HTTP API; for a Pusher cluster other than mt1: "
        "`api-CLUSTER.pusher.com`",
    )
    port: int = Field(443, ge=1, le=65535, description="port of the HTTP API")
    tls: bool = Field(default=True, description="connect to the HTTP API with TLS")
    secure: bool = Field(
        default=False,
        description="send to private channels (`private-job-N`), to which `POST /pusher/auth` "
        "admits readers",
    )
    check_existence: bool = Field(
        default=True,
        description="send only while a job's channel is occupied, according to the app's webhook",
    )
    queue_events: int = Field(
        5000, ge=1, description="maximum queued events (of at most 10 KiB); more are dropped"
    )
    senders: int = Field(4, ge=1, le=64, description="concurrent requests; at most one per job")

    @model_validator(mode="after")
    def _apps_are_complete(self) -> Self:
        is_unset = [item is None for item in (self.app_id, self.key, self.secret)]
        if any(is_unset) and not all(is_unset):
            raise ValueError("app_id, key and secret belong together: set all three or none")
        if self.app_id is not None and not (self.app_id.isascii() and self.app_id.isdecimal()):
            raise ValueError("app_id must be digits")
        return self


def _checkout_data_dir() -> Path | None:
    """`.stack` in a checkout; None if logflume is installed."""
    root = Path(__file__).resolve().parents[2]
    try:
        is_checkout = '\nname = "logflume"\n' in (root / "pyproject.toml").read_text()
    except OSError:
        is_checkout = False
    return root / ".stack" if is_checkout else None


class StackSettings(Group):
    """The local stack of real components for development and tests."""

    data_dir: Path | None = Field(
        _checkout_data_dir(),
        description="folder of the local stack's data, logs, keys and settings file; unset outside "
        "a checkout",
    )

    @property
    def folder(self) -> Path:
        """`data_dir`, for commands that need it.

        Raises:
            SettingsError: it is unset.
        """
        if self.data_dir is None:
            raise SettingsError(
                "the local stack has no data folder: set LOGFLUME_STACK__DATA_DIR, or run logflume "
                "from a checkout"
            )
        return self.data_dir


class TelemetrySettings(Group):
    """Logs, metrics, health, traces and error reports of the processes."""

    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="minimum level of log lines"
    )
    log_format: Literal["auto", "json", "console"] = Field(
        "auto", description="format of log lines; auto: console on a terminal, otherwise JSON"
    )
    host: str = Field(
        "127.0.0.1", description="address of `/metrics` and `/health` of the drain and the worker"
    )
    port: int | None = Field(
        None,
        ge=1,
        le=65535,
        description="their port, different for each process on a host; unset: not served. The web "
        "serves both on its own port",
    )
    otlp_endpoint: Annotated[str, _url("http", "https")] | None = Field(
        None,
        description="URL of an OTLP/HTTP collector, e.g. `http://localhost:4318`; needs the extra "
        "`logflume[otel]`; unset: no traces",
    )
    otlp_headers: SecretStr | None = Field(
        None, description="headers for the collector, as `name=value,name=value`"
    )
    trace_ratio: float = Field(
        1.0, ge=0, le=1, description="share of logs to trace; set the same for all processes"
    )
    sentry_dsn: Annotated[SecretStr, _url("https", "http")] | None = Field(
        None,
        description="DSN of the Sentry project for errors; needs the extra `logflume[sentry]`; "
        "unset: errors are not reported",
    )

    @field_validator("otlp_endpoint")
    @classmethod
    def _no_password_in_the_url(cls, url: str | None) -> str | None:
        if url and "@" in url:
            raise ValueError("the URL must not contain a password: set OTLP_HEADERS")
        return url
