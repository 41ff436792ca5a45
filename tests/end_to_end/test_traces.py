"""One log from RabbitMQ to the archive as a trace."""

import asyncio
from collections.abc import Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import structlog
from pydantic import SecretStr
from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer

from logflume.observability import spans
from logflume_cli.worker import QUEUES, _worker
from tests.support import broker
from tests.support.collector import Collector, Span, collecting
from tests.support.histories import recorded
from tests.support.services import TOKEN, draining, serving
from tests.support.waiting import until
from workflows.all import WORKFLOWS
from workflows.client.connection import connect_temporal
from workflows.client.tracing import interceptors
from workflows.lifecycle_types import workflow_id

CALLER = ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331")
TRACEPARENT = "00-{}-{}-01".format(*CALLER)
TEXT = "the text of the log"
HEADER = "the secret of the collector"
BEGAN = 1_700_000_000_000_000_000
MARKED = (
    f"travis_fold:start:git.checkout\r\ntravis_time:start:timer01\r\n{TEXT}\r\n"
    f"travis_time:end:timer01:start={BEGAN},finish={BEGAN + 5},duration=5,event=checkout\r\n"
    "travis_fold:end:git.checkout\r\n"
)


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


def with_collector(settings, collector: Collector, **more: Any):
    address = f"http://127.0.0.1:{collector.port}"
    headers = SecretStr(f"x-key={HEADER}")
    changes = {"otlp_endpoint": address, "otlp_headers": headers, **more}
    return settings.telemetry.model_copy(update=changes)


@asynccontextmanager
async def working(settings):
    """A worker in this process."""
    task = asyncio.create_task(_worker(settings, list(QUEUES)))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def publish(channel, job_id: int, number: int, text: str, *, final: bool) -> None:
    body = broker.message(job_id, number, text, uuid="a", final=final)
    await broker.publish(channel, body, headers={"traceparent": TRACEPARENT})


async def live(settings, channel, pool, job_id) -> str:
    """Finish a log and read it; returns its workflow's run id."""
    temporals = await connect_temporal(settings.temporal)
    async with (
        draining(settings),
        working(settings),
        serving(settings, pool) as client,
    ):
        await publish(channel, job_id, 0, MARKED, final=False)
        await until(lambda: pool.fetchval("SELECT true FROM logs WHERE job_id = $1", job_id))
        await publish(channel, job_id, 1, "", final=True)
        handle = temporals.get_workflow_handle(workflow_id(job_id))
        await until(lambda: _is_purged(pool, job_id))
        await handle.result()
        run_id = (await handle.describe()).run_id
        caller = {"traceparent": TRACEPARENT}
        answer = await client.get(f"/logs/{job_id}/raw", headers=caller)
        assert TEXT in answer.text
    return run_id


async def _is_purged(pool, job_id: int) -> bool:
    return await pool.fetchval("SELECT purged_at IS NOT NULL FROM logs WHERE job_id = $1", job_id)


def only(found: list[Span], name: str) -> Span:
    [one] = [span for span in found if span.name == name]
    return one


def by_name(found: list[Span], name: str) -> list[Span]:
    return sorted((one for one in found if one.name == name), key=lambda span: span.start_ns)


async def test_one_log_is_one_trace(amqp_settings, channel, pool, job_id, collector):
    with spans.exporting(with_collector(amqp_settings, collector), "all"):
        run_id = await live(amqp_settings, channel, pool, job_id)
    found, whole = collector.spans(), spans.of_log(job_id)
    trace = [span for span in found if span.trace_id == f"{whole.trace_id:032x}"]

    root = only(trace, "log")
    assert (root.span_id, root.parent_id) == (f"{whole.span_id:016x}", "")
    assert root.attributes["logflume.parts"] == 2
    for name in ("flush", "signal"):
        begin, end = by_name(trace, name)
        assert begin.parent_id == end.parent_id == root.span_id
    run = only(trace, "LogLifecycle")
    assert (run.span_id, run.parent_id) == (f"{whole.inner(run_id).span_id:016x}", root.span_id)
    for name, call in (("archive", "put_object"), ("verify", "get_object")):
        act = only(trace, name)
        assert act.parent_id == run.span_id
        assert only(trace, f"S3 {call}").parent_id == act.span_id
    for name in ("aggregate", "purge"):
        assert only(trace, name).parent_id == run.span_id
    step = only(trace, "step checkout")
    assert step.parent_id == root.span_id
    assert (step.start_ns, step.end_ns) == (BEGAN, BEGAN + 5)
    assert not [span for span in found if span.error]
    ours = [span for span in trace if not span.name.startswith("S3 ")]
    assert {span.attributes["logflume.job_id"] for span in ours} == {job_id}
    assert {span.process for span in found} == {"logflume-all"}

    batches = {(span.trace_id, span.span_id) for span in by_name(found, "flush batch")}
    for flush in by_name(trace, "flush"):
        batch, caller = flush.links
        assert batch in batches
        assert caller == CALLER

    request = only(found, "GET /logs/{job_id}/raw")
    assert request.trace_id != root.trace_id
    assert request.links == (CALLER, (root.trace_id, root.span_id))
    assert request.attributes["http.response.status_code"] == 200
    assert [one for one in found if one.parent_id == request.span_id]  # read from S3

    sent = b"".join(one.body for one in collector.sent)
    for secret in (TEXT, "timer01", TOKEN, HEADER, amqp_settings.amqp.url.get_secret_value()):
        assert secret.encode() not in sent
    assert {one.headers["x-key"] for one in collector.sent} == {HEADER}
    assert {one.path for one in collector.sent} == {"/v1/traces"}


async def test_without_a_collector_only_spans_are_lost(
    amqp_settings, channel, pool, job_id, collector
):
    with collecting() as gone:
        pass
    with structlog.testing.capture_logs() as lines:
        with spans.exporting(with_collector(amqp_settings, gone), "all"):
            await live(amqp_settings, channel, pool, job_id)
        with spans.exporting(with_collector(amqp_settings, collector, trace_ratio=0), "all"):
            await live(amqp_settings, channel, pool, job_id + 100_000)
    assert [line["event"] for line in lines if line["log_level"] != "info"] == ["spans_lost"]
    assert not collector.sent


HISTORIES = recorded()


async def test_replays_with_tracing_emit_no_spans(amqp_settings, collector):
    with spans.exporting(with_collector(amqp_settings, collector), "all"):
        replayer = Replayer(workflows=WORKFLOWS, interceptors=interceptors())
        for path in HISTORIES[::4]:
            history = WorkflowHistory.from_json(path.stem, path.read_text())
            await replayer.replay_workflow(history)
    assert not collector.sent
