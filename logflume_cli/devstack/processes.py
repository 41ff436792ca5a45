"""Starts and stops processes that outlive the command; detects reused pids."""

import asyncio
import contextlib
import os
import shutil
import signal
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from logflume.errors import ComponentError
from logflume_cli.devstack.files import read_json, write_private

POLL_SECONDS = 0.05
# The kernel computes start times from the clock, which may be adjusted meanwhile.
CLOCK_SECONDS = 2.0


@dataclass(frozen=True)
class Running:
    """A started process; times in seconds since the epoch."""

    pid: int
    created: float
    started: float


class Register:
    """The process of each component, stored in a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def get(self, name: str) -> Running | None:
        """The recorded process of `name`, alive or not."""
        fields = read_json(self._path).get(name)
        return Running(**fields) if fields else None

    def set(self, name: str, process: Running | None) -> None:
        """Record the process of `name`; None removes it."""
        content = read_json(self._path)
        content.pop(name, None)
        if process is not None:
            content[name] = asdict(process)
        write_private(self._path, content)


def find_program(name: str, folders: list[Path], install: str) -> str:
    """The path of program `name` in `folders` or on the PATH.

    Raises:
        ComponentError: it is not installed; the text suggests the command `install`.
    """
    for folder in folders:
        if (folder / name).exists():
            return str(folder / name)
    path = shutil.which(name)
    if path is None:
        raise ComponentError(f"{name} is not installed: run bin/setup, or {install}")
    return path


def spawn(argv: list[str], env: dict[str, str], log: Path) -> Running:
    """Start a program in its own session with its output in `log`; rotates the previous log."""
    if log.exists():
        log.replace(log.with_name(log.name + ".1"))
    write = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    started = time.time()
    pid = os.posix_spawn(
        argv[0],
        argv,
        env,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log), write, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
        # Ignored signals are inherited, and background shells ignore SIGINT.
        setsigdef=[signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGPIPE],
    )
    return Running(pid, psutil.Process(pid).create_time(), started)


def is_alive(process: Running | None) -> bool:
    """Whether the process runs and its pid was not reused."""
    return process is not None and _find(process) is not None


async def stop(process: Running, with_signal: signal.Signals, seconds: float) -> None:
    """Stop a process; kill it and its children if it still runs after `seconds`."""
    main = _find(process)
    if main is None:
        return
    children = main.children(recursive=True)
    with contextlib.suppress(psutil.NoSuchProcess):
        main.send_signal(with_signal)
    if await _ended(process, seconds):
        return
    for victim in (main, *children):
        with contextlib.suppress(psutil.NoSuchProcess):
            victim.kill()
    await _ended(process, seconds)


def last_line(log: Path) -> str:
    """The last line of a log that contains letters, for an error message."""
    with contextlib.suppress(FileNotFoundError):
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 8192))
            lines = file.read().decode(errors="replace").splitlines()
        useful = [line.strip() for line in lines if any(map(str.isalpha, line))]
        return useful[-1][:400] if useful else "no output"
    return "no output"


def _find(process: Running) -> psutil.Process | None:
    with contextlib.suppress(ChildProcessError):
        os.waitpid(process.pid, os.WNOHANG)
    try:
        candidate = psutil.Process(process.pid)
        is_same = abs(candidate.create_time() - process.created) < CLOCK_SECONDS
        # The main thread may end first: the others still use its files and ports.
        has_ended = candidate.status() == psutil.STATUS_ZOMBIE and candidate.num_threads() == 1
    except psutil.NoSuchProcess:
        return None
    return candidate if is_same and not has_ended else None


async def _ended(process: Running, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while is_alive(process):
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(POLL_SECONDS)
    return True
