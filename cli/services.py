"""The long-running processes, each put together here and nowhere else."""

import asyncio
import signal
import socket
import ssl
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, contextmanager
from typing import Any

import asyncpg
import click
import structlog
import uvicorn
import uvloop
from temporalio.client import Client
from temporalio.common import VersioningBehavior, WorkerDeploymentVersion
from temporalio.runtime import Runtime
from temporalio.worker import UnsandboxedWorkflowRunner, Worker, WorkerDeploymentConfig

import sentry
import temporal
import wire
from activities.backfill import BackfillActivities
from activities.logs import ArchiveActivities, DatabaseActivities
from activities.metrics import readings as worker_readings
from activities.partitions import PartitionActivities
from activities.retention import RetentionActivities
from activities.sweep import SweepActivities
from activities.types import archive_queue
from archive.store import Archive
from db.connect import check_schema, close_pool, open_pool
from drain.drain import Drain
from drain.metrics import readings as drain_readings
from drain.shards import Shards
from drain.signals import Signaller
from errors import ComponentError, SettingsError
from live.client import make_sender
from live.forward import Forwarder
from live.hub import Hub
from monitor import Ask, showing
from publisher import Publisher
from settings import Settings, load_settings
from settings.groups import WebSettings, WorkerSettings
from telemetry import configure_logging
from traces.spans import exporting
from traces.worker import interceptors
from web.app import Services, make_app
from web.tell import Teller
from workflows.all import WORKFLOWS
from workflows.signals import LogWorkflows
from workflows.types import LifecycleOptions

log = structlog.get_logger()

QUEUES = ("lifecycle", "archive")
# Reads of the archive that the web has under way at once, a slice each.
ARCHIVE_THREADS = 8


def _run(name: str, service: Callable[[Settings], Coroutine[Any, Any, None]]) -> None:
    settings = load_settings()
    configure_logging(settings.telemetry, name)
    with sentry.reporting(settings.telemetry, name), exporting(settings.telemetry, name):
        uvloop.run(service(settings))


def _on_stop(stop: Callable[[], object]) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)


@click.command()
@click.option(
    "--sharded",
    is_flag=True,
    help="Consume the sharded queues as well: RabbitMQ's plugin rabbitmq_sharding and the setting "
    "LOGFLUME_AMQP__MANAGEMENT_URL are needed.",
)
def drain(*, sharded: bool) -> None:
    """Take parts from RabbitMQ, commit them to Postgres and tell each log's workflow.

    Ctrl-C or SIGTERM stops consuming, commits and acknowledges what was received, and ends.
    """
    _run("drain", lambda settings: _drain(settings, sharded=sharded))


async def _drain(settings: Settings, *, sharded: bool) -> None:
    async with AsyncExitStack() as stack:
        shards = Shards(settings.amqp) if sharded else None
        if shards:
            stack.push_async_callback(shards.close)
        # One connection for each flush in flight.
        pool = await open_pool(settings.database, settings.drain.flushes)
        stack.push_async_callback(close_pool, pool)
        await check_schema(pool, "logflume_drain")
        signaller = Signaller(
            # Ingest does not wait for Temporal, not even at the start.
            await _lazy_workflows(settings),
            interval=settings.drain.signal_seconds,
            in_flight=settings.drain.signals_in_flight,
        )
        sender = make_sender(settings.pusher)
        live = Forwarder(sender, settings.pusher) if sender else None
        process = Drain(settings.amqp, settings.drain, pool, signaller, live, shards)
        _on_stop(process.stop)
        # Temporal is none of them: parts are taken and stored without it.
        needs = {"rabbitmq": process.queue, "postgres": lambda: pool.fetchval("SELECT 1")}
        readings = drain_readings(process.queue)
        await stack.enter_async_context(showing("drain", settings.telemetry, needs, readings))
        await process.run()


async def _lazy_workflows(settings: Settings) -> LogWorkflows:
    return _workflows(await temporal.connect(settings.temporal, lazy=True), settings)


def _workflows(client: Client, settings: Settings) -> LogWorkflows:
    options = LifecycleOptions(**settings.lifecycle.model_dump())
    return LogWorkflows(client, settings.temporal.task_queue, options)


@click.command()
@click.option(
    "--queues",
    default=",".join(QUEUES),
    show_default=True,
    help="Which work to take, separated by commas: `lifecycle` runs the workflows and their "
    "database activities, `archive` moves logs to S3 and reads them back.",
)
def worker(queues: str) -> None:
    """Run the workflows and their activities.

    Run as many as you like; with --queues some may serve the archive alone, so that a slow S3
    never holds aggregation up.
    """
    wanted = [name.strip() for name in queues.split(",")]
    if unknown := [name for name in wanted if name not in QUEUES]:
        raise click.BadParameter(f"{unknown[0]!r} is none of {', '.join(QUEUES)}")
    _run("worker", lambda settings: _worker(settings, wanted))


async def _worker(settings: Settings, queues: list[str]) -> None:
    stop = asyncio.Event()
    _on_stop(stop.set)
    async with AsyncExitStack() as stack:
        runtime, sdk_metrics = _measured(settings)
        client = await temporal.connect(settings.temporal, runtime=runtime)
        await temporal.ensure_search_attributes(client)
        pool = await open_pool(settings.database)
        stack.push_async_callback(close_pool, pool)
        await check_schema(pool, "logflume_worker")
        limits = settings.worker
        task_queue = settings.temporal.task_queue
        store = Archive(settings.s3, limits.archive_activities)
        if "lifecycle" in queues:
            database = DatabaseActivities(pool)
            logs = _workflows(client, settings)
            lifecycle_worker = Worker(
                client,
                task_queue=task_queue,
                workflows=WORKFLOWS,
                # The tests run workflows in the sandbox; here it would cost a third of the CPU.
                workflow_runner=UnsandboxedWorkflowRunner(),
                activities=[
                    database.aggregate,
                    database.purge,
                    SweepActivities(pool, logs).sweep_page,
                    BackfillActivities(pool, logs).backfill_page,
                    *PartitionActivities(pool).all,
                ],
                max_cached_workflows=limits.workflow_cache,
                max_concurrent_activities=limits.activities,
                deployment_config=_deployment(limits),
                interceptors=interceptors(),
                graceful_shutdown_timeout=limits.shutdown,
            )
            await stack.enter_async_context(lifecycle_worker)
        if "archive" in queues:
            archive = ArchiveActivities(pool, store)
            archive_worker = Worker(
                client,
                task_queue=archive_queue(task_queue),
                activities=[*archive.all, *RetentionActivities(pool, store).all],
                max_concurrent_activities=limits.archive_activities,
                deployment_config=_deployment(limits),
                interceptors=interceptors(),
                graceful_shutdown_timeout=limits.shutdown,
            )
            await stack.enter_async_context(archive_worker)
        needs: dict[str, Ask] = {
            "postgres": lambda: pool.fetchval("SELECT 1"),
            "temporal": lambda: temporal.check(client),
            **({"archive": store.check} if "archive" in queues else {}),
        }
        readings = worker_readings(pool, client)
        shown = showing("worker", settings.telemetry, needs, readings, sdk_metrics)
        await stack.enter_async_context(shown)
        log.info("worker_started", queues=queues, task_queue=task_queue, build_id=limits.build_id)
        await stop.wait()
    log.info("worker_stopped")


def _measured(settings: Settings) -> tuple[Runtime | None, str]:
    """Temporal's library counts where there is somebody to show it to."""
    return (None, "") if settings.telemetry.port is None else temporal.measured()


def _deployment(settings: WorkerSettings) -> WorkerDeploymentConfig | None:
    if settings.build_id is None:
        return None
    return WorkerDeploymentConfig(
        version=WorkerDeploymentVersion(settings.deployment, settings.build_id),
        use_worker_versioning=True,
        # A log may live for weeks: no version's workers could be kept for that long.
        default_versioning_behavior=VersioningBehavior.AUTO_UPGRADE,
    )


@click.command()
def web() -> None:
    """Serve the HTTP API: logs, their lives, health and the API's description."""
    _run("web", _web)


async def _web(settings: Settings) -> None:
    async with AsyncExitStack() as stack:
        listening = stack.enter_context(_listen(settings.web))
        pool = await open_pool(settings.database)
        stack.push_async_callback(close_pool, pool)
        await check_schema(pool, "logflume_web")
        services = await web_services(settings, pool, stack)
        config = uvicorn.Config(
            make_app(settings, services),
            http="httptools",
            log_config=None,
            access_log=False,
            server_header=False,
            # Who called a proxy before us makes no difference here, so nobody is believed about it.
            proxy_headers=False,
            timeout_graceful_shutdown=10,
            **_tls(settings.web),
        )
        server = _Server(config)

        def end() -> None:
            # Before uvicorn waits for what is under way: streams have no end of their own.
            services.hub.close()
            server.should_exit = True

        _on_stop(end)
        log.info("web_started", host=settings.web.host, port=settings.web.port)
        await server.serve(sockets=[listening])
    log.info("web_stopped")


async def web_services(settings: Settings, pool: asyncpg.Pool, stack: AsyncExitStack) -> Services:
    """Make what the web is put together of; `stack` closes it again."""
    # Logs can be read while Temporal is away.
    workflows = await _lazy_workflows(settings)
    publisher = Publisher(settings.amqp.url.get_secret_value(), "logflume web", wire.declare)
    stack.push_async_callback(publisher.close)
    teller = Teller(workflows)
    stack.push_async_callback(teller.close)
    hub = Hub(pool, settings.database)
    hearing = asyncio.create_task(hub.run())
    stack.callback(hearing.cancel)
    archive = Archive(settings.s3, ARCHIVE_THREADS)
    return Services(pool, archive, workflows, publisher, hub, teller)


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to us: uvicorn would raise them again and end with an error."""
        yield


def _tls(settings: WebSettings) -> dict[str, Any]:
    if settings.tls_cert_file is None or settings.tls_key_file is None:
        return {}
    files = (settings.tls_cert_file, settings.tls_key_file)
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(*files)
    except OSError as error:
        raise SettingsError(
            f"LOGFLUME_WEB__TLS_CERT_FILE and TLS_KEY_FILE: {files[0]} and {files[1]} are no "
            f"certificate and its key: {error.strerror or error}"
        ) from error
    return {"ssl_certfile": files[0], "ssl_keyfile": files[1]}


def _listen(settings: WebSettings) -> socket.socket:
    address = (settings.host, settings.port)
    try:
        return socket.create_server(address, reuse_port=False)
    except OSError as error:
        raise ComponentError(
            f"cannot listen on {settings.host} port {settings.port}: {error.strerror}; "
            "end what listens there, or set LOGFLUME_WEB__HOST and LOGFLUME_WEB__PORT"
        ) from error
