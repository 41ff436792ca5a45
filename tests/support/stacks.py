"""Starts stacks from a copy of a cluster with the schema, and ends stacks for good."""

import asyncio
import fcntl
import os
import signal
import subprocess
from pathlib import Path

from logflume_cli.devstack.components import NAMES
from logflume_cli.devstack.stack import LocalStack


def cluster_with_schema(shared: Path) -> Path:
    """Make a stack's folder that has Postgres' data with the schema, once for all processes."""
    template = shared / "cluster"
    with (shared / "cluster.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not template.exists():
            stack = LocalStack(shared / "cluster.new")
            asyncio.run(stack.up(["postgres"]))
            asyncio.run(stack.down())
            stack.home.data_dir.rename(template)
    return template


def copy_cluster(template: Path, folder: Path) -> Path:
    """Copy the data, and the users' passwords, to a new stack's folder."""
    for name in ("secrets.json", "postgres"):
        subprocess.run(["cp", "-a", template / name, folder], check=True)
    return folder


async def discard(stack: LocalStack) -> None:
    """Stop a stack for good; RabbitMQ is killed, as it takes six seconds to exit by itself."""
    await stack.down(name for name in NAMES if name not in {"epmd", "rabbitmq"})
    for item in stack.status():
        if item.name == "rabbitmq" and item.pid:
            os.kill(item.pid, signal.SIGKILL)
    await stack.down()
