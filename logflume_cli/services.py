"""Shared by the long-running processes: start, signals, and the workflows of logs."""

import asyncio
import resource
import signal
from collections.abc import Callable, Coroutine
from typing import Any

import uvloop
from temporalio.client import Client

from logflume.observability import sentry
from logflume.observability.logging import configure_logging
from logflume.observability.spans import exporting
from logflume.settings import Settings, load_settings
from logflume_cli.options import lifecycle_options
from workflows.client.connection import connect_temporal
from workflows.client.logs import LogWorkflows

# Some systems allow a thousand million, for which the kernel and libraries allocate tables.
MAX_FILES = 65536


def run(name: str, service: Callable[[Settings], Coroutine[Any, Any, None]]) -> None:
    """Run a process with logging, error reports and traces."""
    settings = load_settings()
    configure_logging(settings.telemetry, name)
    _raise_file_limit()
    with sentry.reporting(settings.telemetry, name), exporting(settings.telemetry, name):
        uvloop.run(service(settings))


def _raise_file_limit() -> None:
    """Allow this process as many open files as the system does; the usual limit is only 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def on_stop(stop: Callable[[], object]) -> None:
    """Call `stop` on SIGTERM and Ctrl-C."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)


async def lazy_workflows(settings: Settings) -> LogWorkflows:
    """The client for logs' workflows; it connects to Temporal at its first request."""
    return make_workflows(await connect_temporal(settings.temporal, lazy=True), settings)


def make_workflows(client: Client, settings: Settings) -> LogWorkflows:
    """The workflows of logs; new ones get the options from the settings."""
    options = lifecycle_options(settings)
    url = settings.web.url.rstrip("/")
    return LogWorkflows(client, settings.temporal.task_queue, options, url)
