"""Signals to real Temporal: coalesced, kept while it is away, never dropped."""

import asyncio

import pytest
from temporalio.api.enums.v1 import EventType
from temporalio.service import RPCError

from drain.signals import Signaller
from workflows.client import connection as temporal
from workflows.client.logs import LogWorkflows
from workflows.types import Batch, LifecycleOptions, workflow_id

ONE = Batch(parts=1, bytes=10)


async def told(client, job_id: int) -> list[Batch]:
    """The batches that arrived at a log's workflow, which no worker serves here."""
    handle = client.get_workflow_handle(workflow_id(job_id))
    signals = []
    async for event in handle.fetch_history_events():
        if event.event_type == EventType.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED:
            payloads = event.workflow_execution_signaled_event_attributes.input.payloads
            signals += await client.data_converter.decode(payloads, [Batch])
    return signals


def signaller(client, settings, interval: float) -> Signaller:
    workflows = LogWorkflows(client, settings.temporal.task_queue, LifecycleOptions())
    return Signaller(workflows, interval=interval, in_flight=4)


@pytest.fixture
async def client(settings):
    return await temporal.connect(settings.temporal)


async def test_the_first_and_the_final_batch_go_at_once_and_the_rest_together(
    client, settings, job_id
):
    signals = signaller(client, settings, interval=3600)
    signals.add(job_id, Batch(1, 10, begun=True))
    await _until_told(client, job_id, 1)
    for _ in range(50):
        signals.add(job_id, ONE)
    assert len(await told(client, job_id)) == 1
    signals.add(job_id, Batch(1, 10, final=True))
    await _until_told(client, job_id, 2)
    assert await told(client, job_id) == [
        Batch(1, 10, begun=True),
        Batch(51, 510, final=True),
    ]
    assert await signals.close(10) == 0


async def test_what_is_held_back_is_sent_when_the_interval_is_over(client, settings, job_id):
    signals = signaller(client, settings, interval=0.3)
    signals.add(job_id, Batch(1, 10, begun=True))
    await _until_told(client, job_id, 1)
    for _ in range(5):
        signals.add(job_id, ONE)
    await _until_told(client, job_id, 2)
    assert await told(client, job_id) == [Batch(1, 10, begun=True), Batch(5, 50)]
    await signals.close(10)


async def test_what_comes_while_a_signal_is_under_way_is_held_back_too(client, settings, job_id):
    """Else a slow Temporal would get more signals, not fewer."""
    signals = signaller(client, settings, interval=3600)
    signals.add(job_id, Batch(1, 10, begun=True))
    while signals._held:
        await asyncio.sleep(0)
    signals.add(job_id, ONE)
    await _until_told(client, job_id, 1)
    signals.add(job_id, ONE)
    assert await signals.close(10) == 0
    assert await told(client, job_id) == [Batch(1, 10, begun=True), Batch(2, 20)]


async def test_stopping_sends_what_is_held_back(client, settings, job_id):
    signals = signaller(client, settings, interval=3600)
    signals.add(job_id, Batch(1, 10, begun=True))
    await _until_told(client, job_id, 1)
    signals.add(job_id, ONE)
    assert await signals.close(10) == 0
    assert await told(client, job_id) == [Batch(1, 10, begun=True), ONE]


async def test_with_temporal_away_nothing_waits_and_all_is_added_up(settings, job_id):
    away = settings.temporal.model_copy(update={"address": "127.0.0.1:1"})
    signals = signaller(await temporal.connect(away, lazy=True), settings, interval=0)
    for _ in range(1000):
        signals.add(job_id, ONE)
    assert signals._ready.qsize() <= 1  # in memory, too, it is one
    assert await signals.close(0.5) == 1  # one log left untold, and known


async def _until_told(client, job_id: int, count: int) -> None:
    async with asyncio.timeout(30):
        while True:
            try:
                if len(await told(client, job_id)) >= count:
                    return
            except RPCError:  # no workflow yet
                pass
            await asyncio.sleep(0.05)
