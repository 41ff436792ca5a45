"""A stack of real servers for one benchmark run, in a folder that goes with it."""

import json
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import psutil

from settings import Settings, load_settings, stack_file
from stack.stack import LocalStack

SERVERS = ("rabbitmq", "postgres", "temporal", "s3")


class Server(NamedTuple):
    """Where an HTTP server listens, and the token it wants."""

    host: str
    port: int
    token: str

    def request(self, path: str) -> bytes:
        """A GET as it goes over the wire."""
        return (
            f"GET {path} HTTP/1.1\r\nHost: {self.host}\r\nAuthorization: token {self.token}\r\n\r\n"
        ).encode()


def web_server(settings: Settings) -> Server:
    """The stack's own web."""
    token = settings.web.auth_token
    assert token  # noqa: S101 - the stack makes one
    return Server(settings.web.host, settings.web.port, token.get_secret_value())


@asynccontextmanager
async def servers(**groups: dict[str, object]) -> AsyncIterator[tuple[LocalStack, Settings]]:
    """Start the servers; `groups` are settings that differ from the local stack's."""
    folder = Path(tempfile.mkdtemp(prefix="logflume-bench-"))
    stack = LocalStack(folder, groups)
    try:
        await stack.up(SERVERS)
        given = json.loads(stack_file(folder).read_text())
        yield stack, load_settings(**given)
    finally:
        await stack.down()
        shutil.rmtree(folder, ignore_errors=True)


def cpu_seconds(stack: LocalStack) -> dict[str, float]:
    """CPU seconds used so far by each component of the stack, its children included."""
    used = {}
    for item in stack.status():
        if item.pid:
            root = psutil.Process(item.pid)
            family = [root, *root.children(recursive=True)]
            times = [process.cpu_times() for process in family]
            used[item.name] = sum(
                one.user + one.system + one.children_user + one.children_system for one in times
            )
    return used
