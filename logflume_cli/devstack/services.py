"""Our processes: `logflume drain`, `logflume worker` and `logflume web`."""

import os
import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import aio_pika

from logflume import contract
from logflume.settings import Settings, load_settings
from logflume_cli.devstack.components import Component, answers
from logflume_cli.devstack.home import USER, Home
from logflume_cli.devstack.processes import Running
from logflume_cli.schedules import apply_schedules
from workflows.client.connection import connect_temporal, last_polls


def drain(home: Home) -> Component:
    """The drain; ready when it consumes the queue."""

    async def ready(_: Running) -> bool:
        url = _settings(home).amqp.url.get_secret_value()
        async with await aio_pika.connect(url, timeout=5) as connection:
            channel = await connection.channel()
            queue = await channel.declare_queue(contract.QUEUE, passive=True)
        return bool(queue.declaration_result.consumer_count)

    return _service(home, "drain", ready, ("rabbitmq", "postgres", "temporal"), home.ports["drain"])


def worker(home: Home) -> Component:
    """The worker; ready when it polls Temporal for workflows; `finish` applies the schedules."""

    async def ready(process: Running) -> bool:
        temporal = _settings(home).temporal
        polls = await last_polls(await connect_temporal(temporal), temporal.task_queue)
        # Temporal lists pollers for minutes: ignore those of a killed worker.
        started = datetime.fromtimestamp(process.started, UTC)
        return any(time >= started for time in polls)

    async def finish() -> None:
        await apply_schedules(_settings(home))

    needs = ("postgres", "temporal", "s3")
    return replace(_service(home, "worker", ready, needs, home.ports["worker"]), finish=finish)


def web(home: Home) -> Component:
    """The web; ready when it is live."""

    async def ready(_: Running) -> bool:
        url = f"http://{_settings(home).web.host}:{_settings(home).web.port}/health/live"
        return await answers(url)

    needs = ("rabbitmq", "postgres", "temporal", "s3")
    return _service(home, "web", ready, needs, home.ports["web"])


def _settings(home: Home) -> Settings:
    return load_settings(stack={"data_dir": home.data_dir})


def _service(
    home: Home,
    name: str,
    ready: Callable[[Running], Awaitable[bool]],
    needs: tuple[str, ...],
    port: int,
) -> Component:
    return Component(
        name=name,
        argv=lambda: [str(Path(sys.executable).with_name("logflume")), name],
        env={
            **os.environ,
            "LOGFLUME_STACK__DATA_DIR": str(home.data_dir),
            "LOGFLUME_DATABASE__URL": home.database_url(USER, name),
            # The web serves metrics on its own port.
            **({} if name == "web" else {"LOGFLUME_TELEMETRY__PORT": str(port)}),
        },
        ready=ready,
        ports=[port],
        needs=needs,
    )
