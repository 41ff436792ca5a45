"""Processes that outlive the command that started them, and are never mistaken for others."""

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
# The kernel gives start times by the clock, which may be set between two looks.
CLOCK_SECONDS = 2.0


@dataclass(frozen=True)
class Running:
    """A process as recorded at its start; times in seconds since the epoch."""

    pid: int
    created: float
    started: float


class Register:
    """Which process runs each component, kept in a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def get(self, name: str) -> Running | None:
        """The process recorded for `name`, alive or not."""
        found = read_json(self._path).get(name)
        return Running(**found) if found else None

    def set(self, name: str, process: Running | None) -> None:
        """Record that `process` runs `name`; None: that nothing does any more."""
        content = read_json(self._path)
        content.pop(name, None)
        if process is not None:
            content[name] = asdict(process)
        write_private(self._path, content)


def find_program(name: str, places: list[Path], install: str) -> str:
    """The path of `name` in the first of `places` that has it, else on the PATH.

    Raises:
        ComponentError: it is nowhere; says that `install` brings it.
    """
    for place in places:
        if (place / name).exists():
            return str(place / name)
    found = shutil.which(name)
    if found is None:
        raise ComponentError(f"{name} is not installed: run bin/setup, or {install}")
    return found


def spawn(argv: list[str], env: dict[str, str], log: Path) -> Running:
    """Start a program in a session of its own, its output in `log`; the log before goes aside."""
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
        # A program keeps the signals its parent ignored: background shells ignore SIGINT.
        setsigdef=[signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGPIPE],
    )
    return Running(pid, psutil.Process(pid).create_time(), started)


def is_alive(process: Running | None) -> bool:
    """Whether this very process still runs; one that ended and was not reaped does not."""
    return process is not None and _find(process) is not None


async def stop(process: Running, with_signal: signal.Signals, seconds: float) -> None:
    """End a process, by force if it has not ended by itself after `seconds`."""
    found = _find(process)
    if found is None:
        return
    children = found.children(recursive=True)
    with contextlib.suppress(psutil.NoSuchProcess):
        found.send_signal(with_signal)
    if await _ended(process, seconds):
        return
    for victim in (found, *children):
        with contextlib.suppress(psutil.NoSuchProcess):
            victim.kill()
    await _ended(process, seconds)


def last_line(log: Path) -> str:
    """The last line of a log that says something, for an error message."""
    with contextlib.suppress(FileNotFoundError):
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 8192))
            lines = file.read().decode(errors="replace").splitlines()
        useful = [line.strip() for line in lines if any(map(str.isalpha, line))]
        return useful[-1][:400] if useful else "it wrote nothing"
    return "it wrote nothing"


def _find(process: Running) -> psutil.Process | None:
    with contextlib.suppress(ChildProcessError):
        os.waitpid(process.pid, os.WNOHANG)
    try:
        found = psutil.Process(process.pid)
        same = abs(found.create_time() - process.created) < CLOCK_SECONDS
        return found if same and found.status() != psutil.STATUS_ZOMBIE else None
    except psutil.NoSuchProcess:
        return None


async def _ended(process: Running, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while is_alive(process):
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(POLL_SECONDS)
    return True
