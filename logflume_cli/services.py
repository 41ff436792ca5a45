"""What the long-running processes have in common."""

import asyncio
import signal
from collections.abc import Callable, Coroutine
from typing import Any

import uvloop
from temporalio.client import Client

from logflume.observability import sentry
from logflume.observability.logging import configure_logging
from logflume.observability.spans import exporting
from logflume.settings import Settings, load_settings
from workflows.client import connection as temporal
from workflows.client.logs import LogWorkflows
from workflows.types import LifecycleOptions


def run(name: str, service: Callable[[Settings], Coroutine[Any, Any, None]]) -> None:
    """Run a process until its end, with all that each of them has."""
    settings = load_settings()
    configure_logging(settings.telemetry, name)
    with sentry.reporting(settings.telemetry, name), exporting(settings.telemetry, name):
        uvloop.run(service(settings))


def on_stop(stop: Callable[[], object]) -> None:
    """Call `stop` on SIGTERM and Ctrl-C."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)


async def lazy_workflows(settings: Settings) -> LogWorkflows:
    """The workflows of logs, by a connection that the first call makes."""
    return make_workflows(await temporal.connect(settings.temporal, lazy=True), settings)


def make_workflows(client: Client, settings: Settings) -> LogWorkflows:
    """The workflows of logs, with the settings' times for new ones."""
    options = LifecycleOptions(**settings.lifecycle.model_dump())
    return LogWorkflows(client, settings.temporal.task_queue, options)
