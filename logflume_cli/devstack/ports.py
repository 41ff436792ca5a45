"""The stack's ports: one free block, chosen at the first start and stored."""

import fcntl
import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from logflume.errors import ComponentError
from logflume_cli.devstack.files import read_json, write_private

NAMES = (
    "epmd",
    "amqp",
    "rabbitmq_dist",
    "rabbitmq_management",
    "postgres",
    "temporal",
    "temporal_ui",
    "temporal_http",
    "temporal_metrics",
    "drain",
    "worker",
    "web",
    "s3",
    "s3_master",
    "s3_volume",
    "s3_filer",
    "s3_admin",
    "pusher",
    "pusher_metrics",
)
# SeaweedFS also listens on each of these plus this offset, below the ephemeral ports.
SHADOW = 10_000
SHADOWED = ("s3", "s3_master", "s3_volume", "s3_filer", "s3_admin")
STEP = 40
BASES = range(18_000, 22_680, STEP)


def load_ports(path: Path) -> dict[str, int]:
    """Read the ports from `path`, or choose a free block and store it there.

    Raises:
        ComponentError: no block is free.
        SettingsError: the file is unreadable.
    """
    ports = read_json(path)
    if ports.keys() != set(NAMES):
        with _claims() as claims:
            ports = _choose(claims)
            write_private(path, ports)
            (claims / str(ports[NAMES[0]])).write_text(str(path.resolve()))
    return ports


def shadowed(ports: dict[str, int]) -> list[int]:
    """All ports of SeaweedFS."""
    own = [ports[name] for name in SHADOWED]
    return [*own, *(port + SHADOW for port in own)]


def is_free(port: int) -> bool:
    """Whether `port` of 127.0.0.1 is free."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def require_free(component: str, ports: list[int], ports_file: Path) -> None:
    """Check that the ports of `component` are free.

    Raises:
        ComponentError: another program listens on one of them.
    """
    for port in ports:
        if not is_free(port):
            raise ComponentError(
                f"{component} cannot start: {_named(_holder(port))} uses its port {port}; "
                f"stop that program, or run `logflume stack down` and delete {ports_file} "
                "to choose other ports"
            )


def owns(component: str, pid: int, ports: list[int], ports_file: Path) -> bool:
    """Whether `pid` listens on all its ports.

    Raises:
        ComponentError: another program took one of them meanwhile.
    """
    try:
        sockets = psutil.Process(pid).net_connections(kind="tcp")
    except psutil.Error:
        return True  # it ended, or we may not see its sockets
    listening = {item.laddr.port for item in sockets if item.status == psutil.CONN_LISTEN}
    missing = [port for port in ports if port not in listening]
    for port in missing:
        holder = _holder(port)
        if holder is not None and holder.pid != pid:
            raise ComponentError(
                f"{component} cannot listen on port {port}: {_named(holder)} took it; "
                f"delete {ports_file} to choose other ports"
            )
    return not missing


@contextmanager
def _claims() -> Iterator[Path]:
    """The folder that records which stack of this user has which block, locked.

    Stacks that start at the same time, or while another is down, choose different blocks.
    """
    folder = Path(tempfile.gettempdir(), f"logflume-ports-{os.getuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder


def _choose(claims: Path) -> dict[str, int]:
    def is_claimed(base: int) -> bool:
        claim = claims / str(base)
        return claim.exists() and Path(claim.read_text()).exists()

    # A claimed block is the last resort: its stack may have been abandoned.
    for base in sorted(BASES, key=is_claimed):
        ports = {name: base + offset for offset, name in enumerate(NAMES)}
        if all(map(is_free, {*ports.values(), *shadowed(ports)})):
            return ports
    raise ComponentError(
        f"no block of {STEP} free ports between {BASES.start} and {BASES.stop} for the local stack"
    )


def _holder(port: int) -> psutil.Process | None:
    try:
        for item in psutil.net_connections(kind="tcp"):
            held = item.laddr.port if item.laddr else None
            if item.pid and held == port and item.status == psutil.CONN_LISTEN:
                return psutil.Process(item.pid)
    except psutil.Error:
        pass  # only root sees the sockets of other users
    return None


def _named(holder: psutil.Process | None) -> str:
    if holder is None:
        return "another program"
    return f"another program ({holder.name()}, pid {holder.pid})"
