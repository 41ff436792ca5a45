"""The internals of aio-pika, aiormq and pamqp on which drain/deliveries.py relies.

These fail if an update removes one. Adapt drain/deliveries.py before raising the bounds in
pyproject.toml: without the hooks a drain would receive no deliveries.
"""

import asyncio
import struct
from datetime import UTC, datetime
from typing import Any

import aiormq.connection
import pytest
from pamqp import decode

from drain.deliveries import Connection
from logflume.amqp import reaching
from logflume.errors import ComponentError


class Probe(aiormq.connection.TransportFactory):
    """Records how it is called, and opens nothing."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []

    async def create(
        self, url: object, **kwargs: Any
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        self.calls.append(kwargs)
        raise ConnectionError("no transport")


async def test_aio_pika_passes_the_transport_factory_to_aiormq():
    probe = Probe()
    connection = make_connection()
    assert "transport_factory" in connection.kwargs, "hook gone: aio_pika.Connection.kwargs"
    connection.kwargs["transport_factory"] = probe
    with pytest.raises(ComponentError), reaching("RabbitMQ"):
        await connection.connect(timeout=5)
    assert probe.calls, "hook gone: aiormq.Connection(transport_factory=...), by aio_pika's kwargs"
    provider = probe.calls[0].get("ssl_context_provider")
    assert hasattr(provider, "get_context"), (
        "hook gone: TransportFactory.create(url, ssl_context_provider=...) of aiormq"
    )


def make_connection() -> Connection:
    try:
        return Connection("amqp://localhost:1/")
    except AttributeError as error:
        pytest.fail(f"hook gone: aio_pika.Connection.kwargs ({error})")


def test_aiormq_has_handlers_for_alarms():
    for name in ("blocked", "unblocked"):
        hook = f"_Connection__handle_connection_{name}"
        assert hasattr(aiormq.connection.Connection, hook), f"hook gone: {hook}, used by amqp.py"


def test_pamqp_decodes_single_properties():
    now = datetime(2026, 11, 30, tzinfo=UTC)
    time = struct.pack(">Q", int(now.timestamp()))
    assert decode.timestamp(time) == (8, now), "hook changed: pamqp.decode.timestamp"
    table = b"\x01aI" + struct.pack(">i", 7)
    encoded = struct.pack(">I", len(table)) + table
    assert decode.field_table(encoded) == (len(encoded), {"a": 7}), (
        "hook changed: pamqp.decode.field_table"
    )
