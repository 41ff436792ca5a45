"""Runs our commands as processes with the settings of a test, and freezes servers."""

import asyncio
import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
from pydantic import SecretStr

from logflume.settings import Settings, stack_file
from logflume_cli.devstack.home import PROCESSES, Home
from logflume_cli.devstack.stack import LocalStack
from tests.support.services import as_process
from tests.support.waiting import until

LOGFLUME = str(Path(sys.executable).parent / "logflume")
Done = subprocess.CompletedProcess[str]


def run(*command: str | Path, timeout: float = 60, **options: Any) -> Done:
    """Run a command, whatever its exit code; returns its output as text."""
    return subprocess.run(
        command, capture_output=True, text=True, timeout=timeout, check=False, **options
    )


def on_terminal(*command: str, **options: Any) -> str:
    """Run a command on a terminal; returns what it prints there."""
    master, slave = pty.openpty()
    process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, **options)
    os.close(slave)
    printed = b""
    with suppress(OSError):  # at its end
        while piece := os.read(master, 4096):
            printed += piece
    os.close(master)
    process.wait()
    return printed.decode()


def peak_bytes(pid: int) -> int:
    """A process's peak RSS in bytes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def environment(settings: Settings, folder: Path) -> dict[str, str]:
    """Write all settings into a stack's folder; returns the environment that selects it."""
    folder.mkdir(exist_ok=True)
    given = settings.model_dump(exclude={"stack"})
    stack_file(folder).write_text(json.dumps(given, default=_plain))
    return {**os.environ, "LOGFLUME_STACK__DATA_DIR": str(folder)}


def _plain(value: SecretStr | Path) -> str:
    return value.get_secret_value() if isinstance(value, SecretStr) else str(value)


@asynccontextmanager
async def running(
    settings: Settings, folder: Path, *command: str, started: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a command for the duration of the block, once its log contains `started`."""
    settings = as_process(settings, command[1]) if command[1] in PROCESSES else settings
    log = folder.with_suffix(".log")
    with log.open("wb") as file:
        process = await asyncio.create_subprocess_exec(
            *command, env=environment(settings, folder), stderr=file
        )

    async def has_started() -> bool:
        assert process.returncode is None, log.read_text()
        return started in log.read_text()

    try:
        await until(has_started)
        yield process
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        code = await process.wait()
    assert code == 0, log.read_text()


@contextmanager
def frozen(servers: Home, *names: str) -> Iterator[None]:
    """Stop servers and their child processes, as on a host that hangs."""
    pids = [item.pid for item in LocalStack(servers.data_dir).status() if item.name in names]
    processes = [
        one for pid in pids for one in (psutil.Process(pid), *psutil.Process(pid).children())
    ]
    try:
        for process in processes:
            process.send_signal(signal.SIGSTOP)
        yield
    finally:
        for process in reversed(processes):
            process.send_signal(signal.SIGCONT)
