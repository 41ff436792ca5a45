"""Composition root of `logflume worker`."""

import asyncio
from contextlib import AsyncExitStack

import click
import structlog
from temporalio.common import VersioningBehavior, WorkerDeploymentVersion
from temporalio.runtime import Runtime
from temporalio.worker import UnsandboxedWorkflowRunner, Worker, WorkerDeploymentConfig

from activities.backfill import BackfillActivities
from activities.jitter import Jitter
from activities.logs import ArchiveActivities, DatabaseActivities
from activities.metrics import SERVING, readings
from activities.partitions import PartitionActivities
from activities.retention import RetentionActivities
from activities.sweep import SweepActivities
from activities.types import archive_queue
from db.connect import check_schema, check_writable, close_pool, open_pool
from logflume.archive.store import Archive
from logflume.backoff import Backoff
from logflume.errors import LogflumeError
from logflume.observability.health import Check
from logflume.observability.server import metrics_server
from logflume.settings import Settings
from logflume.settings.stages import WorkerSettings
from logflume_cli.services import make_workflows, on_stop, run
from workflows.all import WORKFLOWS
from workflows.client.connection import (
    check_temporal,
    connect_temporal,
    ensure_search_attributes,
    measured_runtime,
)
from workflows.client.tracing import interceptors

log = structlog.get_logger()

QUEUES = ("lifecycle", "archive")
PROBE_SECONDS = 60.0


@click.command()
@click.option(
    "--queues",
    default=",".join(QUEUES),
    show_default=True,
    help="Task queues to serve, separated by commas: `lifecycle` runs workflows and database "
    "activities, `archive` uploads logs to S3 and verifies them.",
)
def worker(queues: str) -> None:
    """Run the workflows and their activities.

    Any number of workers can run. With --queues, some can serve only the archive, so that a slow S3
    never delays aggregation.
    """
    wanted = [name.strip() for name in queues.split(",")]
    if unknown := [name for name in wanted if name not in QUEUES]:
        raise click.BadParameter(f"unknown queue {unknown[0]!r}; use {', '.join(QUEUES)}")
    run("worker", lambda settings: _worker(settings, wanted))


async def _worker(settings: Settings, queues: list[str]) -> None:
    stop = asyncio.Event()
    on_stop(stop.set)
    async with AsyncExitStack() as stack:
        runtime, sdk_metrics = _runtime(settings)
        client = await connect_temporal(settings.temporal, runtime=runtime)
        await ensure_search_attributes(client)
        pool = await open_pool(settings.database, name="logflume worker")
        stack.push_async_callback(close_pool, pool)
        await check_schema(pool, "logflume_worker")
        limits = settings.worker
        task_queue = settings.temporal.task_queue
        store = Archive(settings.s3, limits.archive_activities)
        if "archive" in queues:
            probing = asyncio.create_task(_probe_conditions(store))
            stack.callback(probing.cancel)
        logs = make_workflows(client, settings)
        if "lifecycle" in queues:
            database = DatabaseActivities(pool)
            lifecycle_worker = Worker(
                client,
                task_queue=task_queue,
                workflows=WORKFLOWS,
                # Tests run workflows in the sandbox; here it would cost a third of the CPU.
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
                interceptors=[Jitter(), *interceptors()],
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
                interceptors=[Jitter(), *interceptors()],
                graceful_shutdown_timeout=limits.shutdown,
            )
            await stack.enter_async_context(archive_worker)
        needs: dict[str, Check] = {
            "postgres": lambda: check_writable(pool),
            "temporal": lambda: check_temporal(client),
            **({"archive": store.check} if "archive" in queues else {}),
        }
        for queue in QUEUES:
            SERVING.labels(queue).set(queue in queues)
        gauges = readings(pool, logs, settings.lifecycle)
        shown = metrics_server("worker", settings.telemetry, needs, gauges, sdk_metrics)
        await stack.enter_async_context(shown)
        log.info("worker_started", queues=queues, task_queue=task_queue, build_id=limits.build_id)
        await stop.wait()
    log.info("worker_stopped")


async def _probe_conditions(store: Archive) -> None:
    """Find out whether the store enforces conditional writes, as soon as it is reachable."""
    backoff = Backoff(PROBE_SECONDS)
    while True:
        try:
            found = await store.probe_conditions()
        except LogflumeError as error:
            delay = backoff.next()
            log.warning("conditional_writes_unknown", error=str(error), retry_seconds=delay)
            await asyncio.sleep(delay)
        else:
            break
    if found.are_enforced:
        log.info("conditional_writes_enforced")
    else:
        log.warning(
            "conditional_writes_not_enforced",
            put=found.put,
            multipart=found.multipart,
            effect="each object is checked again before its purge, "
            "LOGFLUME_S3__LONGEST_REQUEST_SECONDS after it was verified",
        )


def _runtime(settings: Settings) -> tuple[Runtime | None, str]:
    """Temporal's library exports metrics only if the process serves them."""
    return (None, "") if settings.telemetry.port is None else measured_runtime()


def _deployment(settings: WorkerSettings) -> WorkerDeploymentConfig | None:
    if settings.build_id is None:
        return None
    return WorkerDeploymentConfig(
        version=WorkerDeploymentVersion(settings.deployment, settings.build_id),
        use_worker_versioning=True,
        # A lifecycle may take weeks; workers of old versions cannot run that long.
        default_versioning_behavior=VersioningBehavior.AUTO_UPGRADE,
    )
