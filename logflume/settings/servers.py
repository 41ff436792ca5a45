"""Settings of the servers that logflume connects to, and of the local stack that runs them."""

from pathlib import Path
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator

from logflume.errors import SettingsError
from logflume.settings.group import CA_FILE, MIB, Group, url_of


class AmqpSettings(Group):
    """RabbitMQ, the source of parts. The wire contract fixes the exchange and queue names."""

    url: Annotated[SecretStr, url_of("amqp", "amqps")] = Field(
        SecretStr("amqp://localhost:5672/"),
        description="AMQP URL of RabbitMQ, with user and vhost; `amqps` uses TLS: append "
        "`?cafile=FILE` (and `&certfile=FILE&keyfile=FILE` for a client certificate)",
    )
    management_url: Annotated[SecretStr, url_of("http", "https")] | None = Field(
        None,
        description="URL of RabbitMQ's management API, with a user tagged `policymaker`; required "
        "by `logflume drain --sharded`; with it, drain and doctor check the queues' limits",
    )


class DatabaseSettings(Group):
    """Postgres, which stores parts and logs."""

    url: Annotated[SecretStr, url_of("postgresql", "postgres")] = Field(
        SecretStr("postgresql://localhost:5432/logflume"),
        description="Postgres URL, with the process's role as user; append "
        "`?sslmode=verify-full&sslrootcert=FILE` to require TLS and verify the server, and "
        "`&sslcert=FILE&sslkey=FILE` for a client certificate. Several hosts, "
        "`host1:5432,host2:5432`, with `?target_session_attrs=read-write`: the first one that can "
        "be written to",
    )
    direct_url: Annotated[SecretStr, url_of("postgresql", "postgres")] | None = Field(
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

    endpoint: Annotated[str, url_of("http", "https")] | None = Field(
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
