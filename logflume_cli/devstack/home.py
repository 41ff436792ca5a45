"""The data folder of a stack: ports, secrets, keys and the settings file."""

import fcntl
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from logflume.settings import stack_file
from logflume_cli.devstack.files import read_json, write_private
from logflume_cli.devstack.ports import load_ports

HOST = "127.0.0.1"
USER = "logflume"
BUCKET = "logflume-archive"
PUSHER_APP_ID = "1"
# Shorter than in production, to see a whole lifecycle in seconds.
LIFECYCLE = {"settle_seconds": 2, "gap_seconds": 5, "purge_seconds": 10}
# Our processes; each has its own Postgres user.
PROCESSES = ("drain", "worker", "web")
SECRETS = (
    "password",
    *(f"{process}_password" for process in PROCESSES),
    "erlang_cookie",
    "s3_access_key",
    "s3_secret_key",
    "auth_token",
    "link_secret",
    "pusher_key",
    "pusher_secret",
)


@dataclass(frozen=True)
class Home:
    """The data folder of a stack, with its ports and secrets."""

    data_dir: Path
    ports: dict[str, int]
    secrets: dict[str, str]

    @property
    def amqp_url(self) -> str:
        """AMQP URL of the broker, with user and password."""
        return f"amqp://{USER}:{self.secrets['password']}@{HOST}:{self.ports['amqp']}/"

    @property
    def management_url(self) -> str:
        """URL of RabbitMQ's management API, with user and password."""
        port = self.ports["rabbitmq_management"]
        return f"http://{USER}:{self.secrets['password']}@{HOST}:{port}"

    @property
    def temporal_address(self) -> str:
        """host:port of the Temporal frontend."""
        return f"{HOST}:{self.ports['temporal']}"

    @property
    def s3_endpoint(self) -> str:
        """URL of the S3 store."""
        return f"http://{HOST}:{self.ports['s3']}"

    @property
    def ports_file(self) -> Path:
        """The file with the ports."""
        return self.data_dir / "ports.json"

    def database_url(self, database: str, process: str | None = None) -> str:
        """Postgres URL of `database` for the user of a process; None: for the owner."""
        user = f"app_{process}" if process else USER
        secret = self.secrets[f"{process}_password" if process else "password"]
        return f"postgresql://{user}:{secret}@{HOST}:{self.ports['postgres']}/{database}"

    def log(self, component: str) -> Path:
        """The log file of a component."""
        return self.data_dir / "logs" / f"{component}.log"

    def folder(self, component: str) -> Path:
        """The folder of a component's data."""
        return self.data_dir / component


def open_home(data_dir: Path, overrides: dict[str, Any]) -> Home:
    """Create what is missing in the data folder: ports, secrets, keys, then the settings file.

    `overrides` are nested settings groups that replace values in the settings file.

    Raises:
        ComponentError: no ports are free.
        SettingsError: a file in the folder is unreadable.
    """
    data_dir.mkdir(parents=True, exist_ok=True)
    data_dir.chmod(0o700)
    (data_dir / "logs").mkdir(exist_ok=True)
    with _locked(data_dir):
        return _fill(data_dir, overrides)


def set_pusher(home: Home, *, runs: bool) -> None:
    """Add the stack's Pusher server to the settings file, or remove it."""
    path = stack_file(home.data_dir)
    with _locked(home.data_dir):
        before = read_json(path)
        # A server that was set by hand stays.
        is_ours = before.get("pusher", {}).get("key") == home.secrets["pusher_key"]
        after = {name: group for name, group in before.items() if name != "pusher" or not is_ours}
        if runs:
            after = _merged(before, {"pusher": _pusher_settings(home)})
        if after != before:
            write_private(path, after)


@contextmanager
def _locked(data_dir: Path) -> Iterator[None]:
    with (data_dir / "home.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _fill(data_dir: Path, overrides: dict[str, Any]) -> Home:
    home = Home(data_dir, load_ports(data_dir / "ports.json"), _load_secrets(data_dir))
    _make_keys(data_dir)
    path = stack_file(data_dir)
    before = read_json(path)
    after: dict[str, Any] = {"lifecycle": LIFECYCLE}
    for layer in (before, _settings_of(home), overrides):
        after = _merged(after, layer)
    if after != before:
        write_private(path, after)
    return home


def _load_secrets(data_dir: Path) -> dict[str, str]:
    path = data_dir / "secrets.json"
    content = read_json(path)
    if missing := set(SECRETS) - content.keys():
        content |= {name: secrets.token_hex(16) for name in sorted(missing)}
        write_private(path, content)
    return content


def _make_keys(data_dir: Path) -> None:
    private, public = data_dir / "jwt_private.pem", data_dir / "jwt_public.pem"
    if private.exists() and public.exists():
        return
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = serialization.Encoding.PEM
    write_private(
        private,
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
    )
    format_ = serialization.PublicFormat.SubjectPublicKeyInfo
    write_private(public, key.public_key().public_bytes(pem, format_), mode=0o644)


def _settings_of(home: Home) -> dict[str, Any]:
    return {
        "amqp": {"url": home.amqp_url, "management_url": home.management_url},
        "database": {"url": home.database_url(USER)},
        "temporal": {
            "address": home.temporal_address,
            "ui_url": f"http://{HOST}:{home.ports['temporal_ui']}",
        },
        "s3": {
            "endpoint": home.s3_endpoint,
            "access_key": home.secrets["s3_access_key"],
            "secret_key": home.secrets["s3_secret_key"],
            "bucket": BUCKET,
        },
        "web": {
            "port": home.ports["web"],
            "url": f"http://{HOST}:{home.ports['web']}",
            "auth_token": home.secrets["auth_token"],
            "link_secret": home.secrets["link_secret"],
            "jwt_public_key": (home.data_dir / "jwt_public.pem").read_text(),
            "jwt_private_key": (home.data_dir / "jwt_private.pem").read_text(),
        },
    }


def _pusher_settings(home: Home) -> dict[str, Any]:
    return {
        "app_id": PUSHER_APP_ID,
        "key": home.secrets["pusher_key"],
        "secret": home.secrets["pusher_secret"],
        "host": HOST,
        "port": home.ports["pusher"],
        "tls": False,
    }


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    groups = below.keys() | above.keys()
    return {name: {**below.get(name, {}), **above.get(name, {})} for name in sorted(groups)}
