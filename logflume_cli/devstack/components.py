"""What a component is, and which there are."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from logflume_cli.devstack.processes import Running

# In the order of their start. The last three are ours, the rest are servers.
NAMES = ("epmd", "rabbitmq", "postgres", "temporal", "s3", "pusher", "drain", "worker", "web")
# Those that only run when they are asked for.
OPTIONAL = ("pusher",)
DEFAULT = tuple(name for name in NAMES if name not in OPTIONAL)


async def nothing() -> None:
    """For components that have nothing to prepare or to finish."""


@dataclass(frozen=True)
class Component:
    """How one program of the stack is started, watched and stopped."""

    name: str
    argv: Callable[[], list[str]]
    """The command; raises ComponentError when the program is not installed."""
    env: dict[str, str]
    ready: Callable[[Running], Awaitable[bool]]
    """Whether it does its work now."""
    ports: list[int] = field(default_factory=list)
    """Ports it listens on, the one people know first."""
    needs: tuple[str, ...] = ()
    """Components that must be ready before this one starts."""
    prepare: Callable[[], Awaitable[None]] = nothing
    """Runs before each start."""
    finish: Callable[[], Awaitable[None]] = nothing
    """Runs each time it was found ready; must be safe to repeat."""
    stop_signal: signal.Signals = signal.SIGTERM
    stop_seconds: float = 30


async def answers(host: str, port: int) -> bool:
    """Whether something takes connections there."""
    try:
        _reader, writer = await asyncio.open_connection(host, port)
    except OSError:
        return False
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return True


def bare_env(**extra: str) -> dict[str, str]:
    """The environment of a server: nothing of the caller's that could configure it."""
    kept = ("PATH", "LANG", "TMPDIR", "TZ")
    return {name: os.environ[name] for name in kept if name in os.environ} | extra
