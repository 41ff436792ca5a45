"""The groups of settings, one for each part of the system; each field says its unit."""

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

MIB = 1024 * 1024


class Group(BaseModel):
    """A group of settings: fixed once read, and unknown names are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


CA_FILE = (
    "file of CA certificates (PEM) that the server's is checked with; unset: the machine's own"
)


def _url(*schemes: str) -> AfterValidator:
    """Make a check that refuses what is no such URL, and does not repeat it: it holds secrets."""

    def check(url: SecretStr | str) -> SecretStr | str:
        text = url.get_secret_value() if isinstance(url, SecretStr) else url
        try:
            parts = urlsplit(text)
            is_url = parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
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
    """RabbitMQ, where parts come from. The names of exchange and queues are the contract's."""

    url: Annotated[SecretStr, _url("amqp", "amqps")] = Field(
        SecretStr("amqp://localhost:5672/"),
        description="AMQP URL of RabbitMQ, with user and vhost; `amqps` is TLS, with "
        "`?cafile=FILE` (and `&certfile=FILE&keyfile=FILE` for a certificate of our own) behind it",
    )
    management_url: Annotated[SecretStr, _url("http", "https")] | None = Field(
        None,
        description="URL of RabbitMQ's management API, with a user that has the tag `policymaker`; "
        "`logflume drain --sharded` needs it",
    )


class DatabaseSettings(Group):
    """Postgres, where parts and logs are kept."""

    url: Annotated[SecretStr, _url("postgresql", "postgres")] = Field(
        SecretStr("postgresql://localhost:5432/logflume"),
        description="Postgres URL, with the user of the process; "
        "`?sslmode=verify-full&sslrootcert=FILE` behind it insists on TLS and on that CA, "
        "`&sslcert=FILE&sslkey=FILE` is a certificate of our own",
    )
    direct_url: Annotated[SecretStr, _url("postgresql", "postgres")] | None = Field(
        None,
        description="URL of Postgres itself, where that of above is a pooler's (PgBouncer, in "
        "transaction mode or session mode): to listen for news and to deploy the schema; unset: "
        "there is no pooler",
    )
    connections: int = Field(
        8, ge=1, le=500, description="most connections that one process holds open"
    )

    @field_validator("url", "direct_url")
    @classmethod
    def _passwords_stand_before_the_host(cls, url: SecretStr | None) -> SecretStr | None:
        # sqitch gets what stands behind it as an argument, which others on the machine can see.
        if url and "password" in urlsplit(url.get_secret_value()).query:
            raise ValueError("put the password before the host: postgresql://user:password@host/")
        return url

    @property
    def direct(self) -> str:
        """The URL that leads to Postgres itself."""
        return (self.direct_url or self.url).get_secret_value()


class TemporalSettings(Group):
    """The Temporal server that runs the workflows."""

    address: str = Field("localhost:7233", description="host:port of the Temporal frontend")
    namespace: str = Field("default", description="Temporal namespace")
    task_queue: str = Field(
        "logflume",
        min_length=1,
        description="task queue of workflows and database activities; archive work runs on the "
        "queue of this name with `-archive` behind it",
    )
    ui_url: str = Field("", description="address of the Temporal UI, for links; empty: no links")
    tls: bool = Field(default=False, description="whether the frontend speaks TLS")
    ca_file: Path | None = Field(None, description=CA_FILE)
    cert_file: Path | None = Field(
        None, description="file of our own certificate (PEM), where the server asks for one"
    )
    key_file: Path | None = Field(None, description="file of its private key (PEM)")
    api_key: SecretStr | None = Field(
        None, min_length=1, description="API key that the server wants, as Temporal Cloud does"
    )

    @model_validator(mode="after")
    def _secrets_go_by_tls(self) -> Self:
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("cert_file and key_file go together: set both or neither")
        if not self.tls and (self.ca_file or self.cert_file or self.api_key):
            raise ValueError("ca_file, cert_file and api_key want TLS: set tls to true")
        return self


class S3Settings(Group):
    """The archive: an S3 bucket."""

    endpoint: Annotated[str, _url("http", "https")] | None = Field(
        None, description="URL of an S3-compatible store; unset: AWS"
    )
    ca_file: Path | None = Field(None, description=CA_FILE)
    region: str = Field("us-east-1", description="region of the bucket")
    access_key: str | None = Field(
        None, description="access key id; unset: the usual AWS credential chain"
    )
    secret_key: SecretStr | None = Field(None, description="secret access key")
    bucket: str = Field("logflume-archive", min_length=3, description="bucket of the archive")
    acl: str = Field("private", description="canned ACL of archived objects")
    slice_bytes: int = Field(
        8 * MIB,
        ge=5 * MIB,
        le=64 * MIB,
        description="bytes read and sent at a time; a log larger than this is a multipart upload",
    )

    @field_validator("endpoint")
    @classmethod
    def _keys_have_settings(cls, url: str | None) -> str | None:
        if url and "@" in url:
            raise ValueError("put no key into it: set ACCESS_KEY and SECRET_KEY")
        return url

    @model_validator(mode="after")
    def _keys_come_in_pairs(self) -> Self:
        if (self.access_key is None) != (self.secret_key is None):
            raise ValueError("access_key and secret_key go together: set both or neither")
        return self


class DrainSettings(Group):
    """The drain: batches, flushes and signals."""

    prefetch: int = Field(
        8000, ge=1, le=65535, description="messages held unacked; fewer where they are large"
    )
    held_bytes: int = Field(
        64 * MIB, ge=1, description="bytes of the messages held unacked; a message that is larger "
        "is held alone. The drain's memory grows by about twice as much"
    )  # fmt: skip
    batch_parts: int = Field(2000, ge=1, description="parts at which a batch is flushed")
    batch_bytes: int = Field(4 * MIB, ge=1, description="bytes at which a batch is flushed")
    batch_seconds: float = Field(
        0.02, gt=0, le=60, description="seconds after its first part at which a batch is flushed"
    )
    flushes: int = Field(3, ge=1, le=64, description="flushes in flight, a connection each")
    signal_seconds: float = Field(
        15, ge=0, description="least seconds between two signals to one log's workflow, except "
        "for an attempt's first batch and its final part"
    )  # fmt: skip
    signals_in_flight: int = Field(32, ge=1, description="signals to Temporal in flight at once")

    @model_validator(mode="after")
    def _prefetch_fills_batches(self) -> Self:
        if self.prefetch < self.batch_parts:
            raise ValueError(
                f"prefetch {self.prefetch} is less than batch_parts {self.batch_parts}: "
                "no batch could ever fill; raise prefetch or lower batch_parts"
            )
        return self


class LifecycleSettings(Group):
    """Times and limits of a log's life; they travel in the workflow's input."""

    settle_seconds: float = Field(10, ge=0, description="seconds waited after the final part")
    silence_seconds: float = Field(
        3 * 3600, gt=0, description="seconds without a part after which a log counts as ended"
    )
    gap_seconds: float = Field(
        30, ge=0, description="seconds waited for stragglers when numbers are missing"
    )
    purge_seconds: float = Field(
        6 * 3600, ge=0, description="seconds from verification until the content is purged"
    )
    archive_tries: int = Field(
        10, ge=1, le=100, description="tries to archive and verify before a log counts as stuck"
    )
    archive_backoff_seconds: float = Field(
        30, gt=0, description="seconds before the second try; doubles each time, up to an hour"
    )
    history_events: int = Field(
        4000, ge=50, le=40_000, description="history length at which a workflow continues as new"
    )
    max_log_bytes: int = Field(
        MAX_LOG_BYTES,
        ge=1000,
        le=MAX_LOG_BYTES,
        description="longest content of a log, in bytes; what is longer ends there, with a line "
        "that says so. While one is made, Postgres may use six times as much memory",
    )


class SweepSettings(Group):
    """The sweep for logs that no workflow knows of. `logflume schedules apply` brings changes."""

    every_seconds: float = Field(60, ge=10, description="seconds between two rounds")
    after_seconds: float = Field(
        600, gt=0, description="seconds after which a log that nothing was written to is looked at"
    )
    logs: int = Field(500, ge=1, le=100_000, description="most logs that a round looks at")


class PartitionSettings(Group):
    """The partitions of parts. `logflume schedules apply` brings changes."""

    interval: Literal["daily", "hourly"] = Field(
        "daily",
        description="how much time one partition holds; a change begins behind the partitions "
        "that are there already",
    )
    retention_seconds: float = Field(
        2 * 24 * 3600,
        ge=3600,
        description="age in seconds at which a partition is dropped; parts of logs that are not "
        "archived, verified and purged by then are moved to a newer one, so keep it well above "
        "`LOGFLUME_LIFECYCLE__PURGE_SECONDS`",
    )
    premake: int = Field(
        7,
        ge=1,
        le=200,
        description="partitions made ahead, besides that of the present; they must last until the "
        "next maintenance",
    )
    lock_timeout_seconds: float = Field(
        0.2,
        ge=0.01,
        lt=1,  # where Postgres would begin to look for deadlocks and end a writer
        description="seconds that maintenance waits for a lock, and writers behind it, before it "
        "gives up and tries again later",
    )


class RetentionPolicy(Group):
    """When logs are deleted, and what of them."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,39}$")
    older_than_days: int = Field(ge=1, le=36_500)
    delete: Literal["archive", "row"]
    state: Literal["done", "removed", "empty"] = "done"
    larger_than_bytes: int | None = Field(None, ge=0)

    @model_validator(mode="after")
    def _empty_logs_have_rows_only(self) -> Self:
        if self.state == "empty" and (self.delete, self.larger_than_bytes) != ("row", None):
            raise ValueError(
                f"policy {self.name}: an empty log has no text, so no size, and only a row to "
                'delete: write "delete": "row" and leave larger_than_bytes out'
            )
        return self


class RetentionSettings(Group):
    """When logs are deleted: never, unless set. `logflume schedules apply` brings changes."""

    policies: tuple[RetentionPolicy, ...] = Field(
        (),
        description='as JSON: `[{"name": "old", "older_than_days": 365, "delete": "archive"}]`; '
        "[retention](retention.md) has all their fields",
    )
    logs: int = Field(
        10_000, ge=1, le=100_000, description="most logs that a round looks at for each policy"
    )

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        names = [policy.name for policy in self.policies]
        if doubled := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"two policies have the name {doubled.pop()}: name each its own")
        return self


class WorkerSettings(Group):
    """The Temporal worker."""

    workflow_cache: int = Field(1000, ge=1, description="workflows kept in memory")
    activities: int = Field(16, ge=1, description="database activities at once")
    archive_activities: int = Field(
        8, ge=1, description="archive activities at once; each holds one slice in memory"
    )
    shutdown_seconds: float = Field(
        20, ge=0, description="seconds that running activities get to end at shutdown"
    )
    deployment: str = Field(
        "logflume",
        pattern=r"^[^.:]+$",
        description="name of the Worker Deployment that `build_id` is a version of",
    )
    build_id: str | None = Field(
        None,
        min_length=1,
        max_length=255,
        description="version of the code, such as the image's tag: workflows then move to it only "
        "when `temporal worker deployment` says so (docs/upgrading.md); unset: workers of all "
        "versions take all work, unless a version was made current",
    )

    @property
    def shutdown(self) -> timedelta:
        """`shutdown_seconds`, as Temporal wants it."""
        return timedelta(seconds=self.shutdown_seconds)


class WebSettings(Group):
    """The HTTP service."""

    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8080, ge=1, le=65535, description="port to listen on")
    url: str = Field("", description="address under which people reach it, for links")
    tls_cert_file: Path | None = Field(
        None,
        description="file of the certificate (PEM, with what stands between it and the CA) that it "
        "speaks TLS with; unset: a proxy before it does",
    )
    tls_key_file: Path | None = Field(None, description="file of its private key (PEM)")
    auth_token: SecretStr | None = Field(
        None,
        min_length=16,
        description="the token callers must send, 16 characters or more; unset: every call that "
        "needs it is refused",
    )
    jwt_public_key: str | None = Field(
        None,
        description="RSA public key (PEM) that runners' own tokens (JWT, RS512) are checked with; "
        "unset: only the token opens what they do",
    )
    link_secret: SecretStr | None = Field(
        None,
        min_length=32,
        description="what links to one log (`logflume share`) are signed with, 32 characters or "
        "more; unset: there are none",
    )
    public_reads: bool = Field(default=False, description="let anyone read logs, without a token")
    cors_origins: tuple[str, ...] = Field(
        (), description='origins whose pages may call, as JSON: `["https://ci.example"]`'
    )
    max_body_bytes: int = Field(
        64 * MIB, ge=1024, le=512 * MIB, description="largest body of a request, in bytes"
    )

    @model_validator(mode="after")
    def _a_certificate_has_a_key(self) -> Self:
        if (self.tls_cert_file is None) != (self.tls_key_file is None):
            raise ValueError("tls_cert_file and tls_key_file go together: set both or neither")
        return self


class PusherSettings(Group):
    """Pusher, or a server that speaks its protocol: parts go to readers while a job runs."""

    app_id: str | None = Field(None, description="id of the app; unset: parts are not sent live")
    key: str | None = Field(None, min_length=1, description="key of the app, which is public")
    secret: Annotated[SecretStr, Field(min_length=1)] | None = Field(
        None, description="secret of the app; signs requests, and webhooks are checked by it"
    )
    host: str = Field(
        "api.pusherapp.com",
        min_length=1,
        description="host of the HTTP API; at Pusher `api-CLUSTER.pusher.com`, outside of mt1",
    )
    port: int = Field(443, ge=1, le=65535, description="port of the HTTP API")
    tls: bool = Field(default=True, description="whether the HTTP API speaks TLS")
    secure: bool = Field(
        default=False,
        description="send to private channels (`private-job-N`), which readers must be let into "
        "by `POST /pusher/auth`",
    )
    check_existence: bool = Field(
        default=True,
        description="send only while the app's webhook says that a job's channel is occupied",
    )
    queue_events: int = Field(
        5000, ge=1, description="events (of 10 KiB at most) that may wait; more are dropped"
    )
    senders: int = Field(
        4, ge=1, le=64, description="requests in flight at once; those of one job never are"
    )

    @model_validator(mode="after")
    def _an_app_is_whole(self) -> Self:
        given = [self.app_id, self.key, self.secret]
        if any(item is None for item in given) and any(item is not None for item in given):
            raise ValueError("app_id, key and secret go together: set all three or none")
        if self.app_id is not None and not (self.app_id.isascii() and self.app_id.isdecimal()):
            raise ValueError("app_id must be digits")
        return self


class StackSettings(Group):
    """The local stack of real components for development and tests."""

    data_dir: Path = Field(
        Path(__file__).resolve().parents[2] / ".stack",
        description="folder of the local stack's data, logs, keys and settings file",
    )


class TelemetrySettings(Group):
    """What the processes say of themselves."""

    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="least level of log lines written"
    )
    log_format: Literal["auto", "json", "console"] = Field(
        "auto", description="form of log lines; auto: console on a terminal, else JSON"
    )
    host: str = Field(
        "127.0.0.1", description="address of `/metrics` and `/health` of the drain and the worker"
    )
    port: int | None = Field(
        None,
        ge=1,
        le=65535,
        description="their port, another for each process on one host; unset: they have none. The "
        "web shows its own beside its API",
    )
    otlp_endpoint: Annotated[str, _url("http", "https")] | None = Field(
        None,
        description="URL of a collector that takes OTLP over HTTP, as `http://localhost:4318`; "
        "unset: no traces",
    )
    otlp_headers: SecretStr | None = Field(
        None, description="headers it wants, as `name=value,name=value`"
    )
    trace_ratio: float = Field(
        1.0, ge=0, le=1, description="of how many logs there are traces; the same for all processes"
    )
    sentry_dsn: Annotated[SecretStr, _url("https", "http")] | None = Field(
        None, description="DSN of a Sentry project that errors are sent to; unset: to none"
    )

    @field_validator("otlp_endpoint")
    @classmethod
    def _headers_hold_secrets(cls, url: str | None) -> str | None:
        if url and "@" in url:
            raise ValueError("put no password into it: set OTLP_HEADERS")
        return url
