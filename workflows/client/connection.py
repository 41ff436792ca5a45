"""The connection to Temporal, and the translation of its errors."""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Container
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from temporalio.api.enums.v1 import IndexedValueType, TaskQueueType
from temporalio.api.operatorservice.v1 import (
    AddSearchAttributesRequest,
    ListSearchAttributesRequest,
)
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest
from temporalio.client import Client, WorkflowQueryFailedError, WorkflowQueryRejectedError
from temporalio.common import SearchAttributeKey
from temporalio.runtime import (
    LogForwardingConfig,
    LoggingConfig,
    PrometheusConfig,
    Runtime,
    TelemetryConfig,
    TelemetryFilter,
)
from temporalio.service import RPCError, TLSConfig

from logflume.errors import ComponentError, SettingsError
from logflume.settings.servers import TemporalSettings
from workflows.lifecycle_types import JOB_ID, LOG_PHASE
from workflows.partitions import PARTITION_STATE

SEARCH_ATTRIBUTES: tuple[SearchAttributeKey[Any], ...] = (LOG_PHASE, JOB_ID, PARTITION_STATE)
SEARCH_ATTRIBUTE_NAMES = tuple(key.name for key in SEARCH_ATTRIBUTES)


@asynccontextmanager
async def temporal_errors(client: Client, seconds: float | None = None) -> AsyncIterator[None]:
    """Translate what calls to Temporal in the block raise; `seconds` limits the block.

    Raises:
        ComponentError: Temporal is unreachable, refuses the request or does not answer in time.
    """
    try:
        async with asyncio.timeout(seconds):
            yield
    except (
        RPCError,
        RuntimeError,
        TimeoutError,
        WorkflowQueryFailedError,
        WorkflowQueryRejectedError,
    ) as error:
        where = _name(client.service_client.config.target_host, client.namespace)
        raise ComponentError(f"{where}: {str(error) or 'no answer'}") from error


def _name(address: str, namespace: str) -> str:
    return f"Temporal at {address}, namespace {namespace}"


def measured_runtime() -> tuple[Runtime, str]:
    """Create a runtime whose client library exports metrics; returns it and the metrics' URL.

    Raises:
        ComponentError: it cannot listen.
    """
    # The library does not report the port it was given, so it must get one that is free.
    with socket.create_server(("127.0.0.1", 0)) as probe:
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    exporter = PrometheusConfig(
        address, counters_total_suffix=True, unit_suffix=True, durations_as_seconds=True
    )
    try:
        telemetry = TelemetryConfig(logging=_logging(), metrics=exporter, attach_service_name=False)
        runtime = Runtime(telemetry=telemetry)
    except (RuntimeError, ValueError) as error:
        raise ComponentError(f"Temporal's metrics on {address}: {error}; start again") from error
    return runtime, f"http://{address}/metrics"


async def connect_temporal(
    settings: TemporalSettings, *, lazy: bool = False, runtime: Runtime | None = None
) -> Client:
    """Connect to Temporal; `lazy` connects on the first call.

    Raises:
        ComponentError: the server is unreachable or does not know the namespace.
        SettingsError: a certificate file cannot be read.
    """
    api_key = settings.api_key.get_secret_value() if settings.api_key else None
    tls = _tls(settings)
    try:
        client = await Client.connect(
            settings.address,
            namespace=settings.namespace,
            lazy=lazy,
            runtime=runtime or _runtime(),
            tls=tls,
            api_key=api_key,
        )
    except (RPCError, RuntimeError, ValueError) as error:
        where = _name(settings.address, settings.namespace)
        raise ComponentError(f"{where}: {error}") from error
    if not lazy:
        await check_temporal(client)
    return client


@cache
def _runtime() -> Runtime:
    """The runtime of clients without metrics: only its log lines differ from the default."""
    return Runtime(telemetry=TelemetryConfig(logging=_logging()))


def _logging() -> LoggingConfig:
    """Forward the log lines of the library's core, which would print coloured text."""
    return LoggingConfig(
        filter=TelemetryFilter(core_level="WARN", other_level="ERROR"),
        forwarding=LogForwardingConfig(logging.getLogger("temporal")),
    )


def _tls(settings: TemporalSettings) -> TLSConfig | bool:
    if not settings.tls:
        return False
    files = (settings.ca_file, settings.cert_file, settings.key_file)
    ca, cert, key = map(_read, files)
    return TLSConfig(server_root_ca_cert=ca, client_cert=cert, client_private_key=key)


def _read(path: Path | None) -> bytes | None:
    try:
        return path.read_bytes() if path else None
    except OSError as error:
        raise SettingsError(
            f"LOGFLUME_TEMPORAL__*_FILE: cannot read {path}: {error.strerror}"
        ) from error


async def check_temporal(client: Client) -> None:
    """Check that the server answers and knows the namespace.

    Raises:
        ComponentError: it does not.
    """
    async with temporal_errors(client):
        await client.count_workflows("WorkflowId = ''")


async def missing_search_attributes(client: Client) -> list[str]:
    """The search attributes that the workflows set and the namespace lacks.

    Raises:
        ComponentError: Temporal is unreachable or refuses.
    """
    request = ListSearchAttributesRequest(namespace=client.namespace)
    async with temporal_errors(client):
        found = (await client.operator_service.list_search_attributes(request)).custom_attributes
    return [name for name in SEARCH_ATTRIBUTE_NAMES if name not in found]


async def ensure_search_attributes(client: Client) -> None:
    """Create the search attributes that the workflows set, if they do not exist.

    Raises:
        ComponentError: they do not exist and the server refuses to create them.
    """
    missing = await missing_search_attributes(client)
    try:
        await add_search_attributes(client, missing)
    except RPCError as error:
        raise ComponentError(
            f"Temporal namespace {client.namespace} needs the search attributes "
            f"{', '.join(missing)} and refuses to create them ({error}); create them with "
            "`temporal operator search-attribute create`"
        ) from error


async def add_search_attributes(
    client: Client, names: Container[str] = SEARCH_ATTRIBUTE_NAMES
) -> None:
    """Create search attributes; raises RPCError if the server refuses."""
    missing = {
        key.name: IndexedValueType.ValueType(key.indexed_value_type)
        for key in SEARCH_ATTRIBUTES
        if key.name in names
    }
    if missing:
        await client.operator_service.add_search_attributes(
            AddSearchAttributesRequest(namespace=client.namespace, search_attributes=missing)
        )


async def last_polls(
    client: Client,
    task_queue: str,
    kind: TaskQueueType.ValueType = TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW,
) -> list[datetime]:
    """When each worker last polled for this kind of tasks; Temporal remembers them for minutes.

    Raises:
        ComponentError: Temporal is unreachable or refuses.
    """
    request = DescribeTaskQueueRequest(
        namespace=client.namespace,
        task_queue=TaskQueue(name=task_queue),
        task_queue_type=kind,
    )
    async with temporal_errors(client):
        response = await client.workflow_service.describe_task_queue(request)
    return [poller.last_access_time.ToDatetime(UTC) for poller in response.pollers]
