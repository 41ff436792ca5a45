"""The components of the stack: their names and how they are described."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import asyncpg
import httpx
from aiormq.exceptions import AMQPError
from botocore.exceptions import BotoCoreError, ClientError

from logflume.errors import ComponentError
from logflume_cli.devstack.processes import Running

# In start order. The last three are ours, the others are servers.
NAMES = ("epmd", "rabbitmq", "postgres", "temporal", "s3", "pusher", "drain", "worker", "web")
# Started only on request.
OPTIONAL = ("pusher",)
DEFAULT = tuple(name for name in NAMES if name not in OPTIONAL)
# Errors of clients of a component that is not ready.
NOT_READY = (
    AMQPError,
    asyncpg.PostgresError,
    BotoCoreError,
    ClientError,
    ComponentError,
    httpx.HTTPError,
    OSError,
    TimeoutError,
)


async def nothing() -> None:
    """The default of `prepare` and `finish`."""


@dataclass(frozen=True)
class Component:
    """How to start, check and stop one program of the stack."""

    name: str
    argv: Callable[[], list[str]]
    """The command line; raises ComponentError if the program is not installed."""
    env: dict[str, str]
    ready: Callable[[Running], Awaitable[bool]]
    """Whether it is ready; an error in NOT_READY means that it is not."""
    ports: list[int] = field(default_factory=list)
    """Ports it listens on, the main one first."""
    needs: tuple[str, ...] = ()
    """Components that must be ready before this one starts."""
    prepare: Callable[[], Awaitable[None]] = nothing
    """Runs before each start."""
    finish: Callable[[], Awaitable[None]] = nothing
    """Runs each time it becomes ready; must be idempotent."""
    stop_signal: signal.Signals = signal.SIGTERM
    stop_seconds: float = 30


async def answers(url: str) -> bool:
    """Whether an HTTP server answers with 200."""
    async with httpx.AsyncClient(trust_env=False) as client:
        return (await client.get(url)).status_code == httpx.codes.OK


async def accepts_connections(host: str, port: int) -> bool:
    """Whether a process accepts TCP connections there."""
    try:
        _reader, writer = await asyncio.open_connection(host, port)
    except OSError:
        return False
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return True


def bare_env(**extra: str) -> dict[str, str]:
    """The environment of a server, without variables of ours that could configure it."""
    names = ("PATH", "LANG", "TMPDIR", "TZ")
    return {name: os.environ[name] for name in names if name in os.environ} | extra
