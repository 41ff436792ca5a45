"""Signals to real Temporal: coalesced, retried while it is down, never dropped."""

import asyncio

import pytest
from temporalio.api.enums.v1 import EventType
from temporalio.service import RPCError

from tests.support.options import lifecycle_options
from workflows.client.connection import connect_temporal
from workflows.client.logs import LogWorkflows
from workflows.client.signaller import Signaller
from workflows.lifecycle_types import PartsStored, workflow_id

ONE = PartsStored(parts=1, bytes=10)


async def received(client, job_id: int) -> list[PartsStored]:
    """The batches that a log's workflow received; no worker runs here."""
    handle = client.get_workflow_handle(workflow_id(job_id))
    signals = []
    async for event in handle.fetch_history_events():
        if event.event_type == EventType.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED:
            payloads = event.workflow_execution_signaled_event_attributes.input.payloads
            signals += await client.data_converter.decode(payloads, [PartsStored])
    return signals


def signaller(client, settings, interval: float) -> Signaller:
    workflows = LogWorkflows(client, settings.temporal.task_queue, lifecycle_options())
    return Signaller(workflows, interval=interval, in_flight=4, max_backoff=5)


@pytest.fixture
async def client(settings):
    return await connect_temporal(settings.temporal)


async def test_first_and_final_batches_are_sent_at_once_and_others_coalesced(
    client, settings, job_id
):
    signals = signaller(client, settings, interval=3600)
    signals.parts_stored(job_id, PartsStored(1, 10, begun=True))
    await _until_received(client, job_id, 1)
    for _ in range(50):
        signals.parts_stored(job_id, ONE)
    assert len(await received(client, job_id)) == 1
    signals.parts_stored(job_id, PartsStored(1, 10, final=True))
    await _until_received(client, job_id, 2)
    assert await received(client, job_id) == [
        PartsStored(1, 10, begun=True),
        PartsStored(51, 510, final=True),
    ]
    assert await signals.close(10) == 0


async def test_coalesced_batches_are_sent_after_the_interval(client, settings, job_id):
    signals = signaller(client, settings, interval=0.3)
    signals.parts_stored(job_id, PartsStored(1, 10, begun=True))
    await _until_received(client, job_id, 1)
    for _ in range(5):
        signals.parts_stored(job_id, ONE)
    await _until_received(client, job_id, 2)
    assert await received(client, job_id) == [PartsStored(1, 10, begun=True), PartsStored(5, 50)]
    await signals.close(10)


async def test_batches_during_a_signal_are_coalesced_too(client, settings, job_id):
    """Otherwise a slow Temporal would get more signals, not fewer."""
    signals = signaller(client, settings, interval=3600)
    signals.parts_stored(job_id, PartsStored(1, 10, begun=True))
    while signals._waiting:
        await asyncio.sleep(0)
    signals.parts_stored(job_id, ONE)
    await _until_received(client, job_id, 1)
    signals.parts_stored(job_id, ONE)
    assert await signals.close(10) == 0
    assert await received(client, job_id) == [PartsStored(1, 10, begun=True), PartsStored(2, 20)]


async def test_closing_sends_coalesced_batches(client, settings, job_id):
    signals = signaller(client, settings, interval=3600)
    signals.parts_stored(job_id, PartsStored(1, 10, begun=True))
    await _until_received(client, job_id, 1)
    signals.parts_stored(job_id, ONE)
    assert await signals.close(10) == 0
    assert await received(client, job_id) == [PartsStored(1, 10, begun=True), ONE]


async def test_while_temporal_is_down_batches_are_coalesced_without_waiting(settings, job_id):
    away = settings.temporal.model_copy(update={"address": "127.0.0.1:1"})
    signals = signaller(await connect_temporal(away, lazy=True), settings, interval=0)
    for _ in range(1000):
        signals.parts_stored(job_id, ONE)
    assert signals._ready.qsize() <= 1  # also coalesced in memory
    assert await signals.close(0.5) == 1  # one log without its signal


async def _until_received(client, job_id: int, count: int) -> None:
    async with asyncio.timeout(30):
        while True:
            try:
                if len(await received(client, job_id)) >= count:
                    return
            except RPCError:  # no workflow yet
                pass
            await asyncio.sleep(0.05)
