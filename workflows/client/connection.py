"""The connection to Temporal."""

import socket
from pathlib import Path

from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import (
    AddSearchAttributesRequest,
    ListSearchAttributesRequest,
)
from temporalio.client import Client
from temporalio.runtime import PrometheusConfig, Runtime, TelemetryConfig
from temporalio.service import RPCError, TLSConfig

from logflume.errors import ComponentError, SettingsError
from logflume.settings.groups import TemporalSettings

SEARCH_ATTRIBUTES = {
    "LogPhase": IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD,
    "JobId": IndexedValueType.INDEXED_VALUE_TYPE_INT,
    "PartitionState": IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD,
}


def describe(settings: TemporalSettings) -> str:
    """Name the server for a person."""
    return f"Temporal at {settings.address}, namespace {settings.namespace}"


def measured() -> tuple[Runtime, str]:
    """Make a runtime for Temporal's library that counts, and the URL under which it shows that.

    Raises:
        ComponentError: it cannot listen there.
    """
    # The library does not tell which port it got: it must be told one that is free.
    with socket.create_server(("127.0.0.1", 0)) as probe:
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    shown = PrometheusConfig(
        address, counters_total_suffix=True, unit_suffix=True, durations_as_seconds=True
    )
    try:
        runtime = Runtime(telemetry=TelemetryConfig(metrics=shown, attach_service_name=False))
    except (RuntimeError, ValueError) as error:
        raise ComponentError(f"Temporal's metrics on {address}: {error}; start again") from error
    return runtime, f"http://{address}/metrics"


async def connect(
    settings: TemporalSettings, *, lazy: bool = False, runtime: Runtime | None = None
) -> Client:
    """Connect to Temporal; `lazy` puts that off to the first call.

    `runtime` is one that counts (`measured`), None Temporal's own.

    Raises:
        ComponentError: the server is out of reach or does not know the namespace.
        SettingsError: a file of a certificate cannot be read.
    """
    api_key = settings.api_key.get_secret_value() if settings.api_key else None
    tls = _tls(settings)
    try:
        client = await Client.connect(
            settings.address,
            namespace=settings.namespace,
            lazy=lazy,
            runtime=runtime,
            tls=tls,
            api_key=api_key,
        )
        if not lazy:
            await check(client)
    except (RPCError, RuntimeError, ValueError) as error:
        raise ComponentError(f"{describe(settings)}: {error}") from error
    return client


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


async def check(client: Client) -> None:
    """Find out whether the server answers and knows the namespace.

    Raises:
        RPCError, RuntimeError: it does not.
    """
    await client.count_workflows("WorkflowId = ''")


async def ensure_search_attributes(client: Client) -> None:
    """Make the search attributes the workflows set, where the server lacks them.

    Raises:
        ComponentError: the server lacks them and lets us make none.
    """
    namespace = client.namespace
    try:
        have = await client.operator_service.list_search_attributes(
            ListSearchAttributesRequest(namespace=namespace)
        )
        missing = {
            name: kind
            for name, kind in SEARCH_ATTRIBUTES.items()
            if name not in have.custom_attributes
        }
        if missing:
            await client.operator_service.add_search_attributes(
                AddSearchAttributesRequest(namespace=namespace, search_attributes=missing)
            )
    except RPCError as error:
        names = ", ".join(SEARCH_ATTRIBUTES)
        raise ComponentError(
            f"Temporal namespace {namespace} needs the search attributes {names} and refuses to "
            f"make them ({error}); make them with `temporal operator search-attribute create`"
        ) from error
