"""The connection to Temporal."""

from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import (
    AddSearchAttributesRequest,
    ListSearchAttributesRequest,
)
from temporalio.client import Client
from temporalio.service import RPCError

from errors import ComponentError
from settings.groups import TemporalSettings

SEARCH_ATTRIBUTES = {
    "LogPhase": IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD,
    "JobId": IndexedValueType.INDEXED_VALUE_TYPE_INT,
    "PartitionState": IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD,
}


def describe(settings: TemporalSettings) -> str:
    """Name the server for a person."""
    return f"Temporal at {settings.address}, namespace {settings.namespace}"


async def connect(settings: TemporalSettings, *, lazy: bool = False) -> Client:
    """Connect to Temporal; `lazy` puts that off to the first call.

    Raises:
        ComponentError: the server is out of reach or does not know the namespace.
    """
    try:
        client = await Client.connect(settings.address, namespace=settings.namespace, lazy=lazy)
        if not lazy:
            await _check_namespace(client)
    except (RPCError, RuntimeError, ValueError) as error:
        raise ComponentError(f"{describe(settings)}: {error}") from error
    return client


async def _check_namespace(client: Client) -> None:
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
