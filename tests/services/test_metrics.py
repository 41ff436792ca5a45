"""Metrics and health of drain, worker and web, scraped over HTTP."""

import contextlib
import json
import math
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aio_pika
import pytest
from prometheus_client import REGISTRY
from temporalio import activity, workflow
from temporalio.exceptions import ApplicationError, FailureError
from temporalio.service import RPCError
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from activities import metrics as worker_metrics
from activities.metrics import readings as worker_readings
from db import aggregation, logs
from db.connect import open_pool
from db.maintenance import switch_off, switch_on
from db.parts import store_batch
from db.stats import EXAMINED, OLDEST_UNARCHIVED, OverdueLogs, count_overdue, read_stats
from drain.metrics import readings as drain_readings
from logflume import contract
from logflume.errors import ComponentError
from logflume.observability.metrics import Readings
from logflume.observability.server import metrics_server
from logflume_cli.services import make_workflows
from tests.support import broker
from tests.support.metrics import parsed, scrape, shown
from tests.support.parts import part, write_whole
from tests.support.services import draining, serving
from tests.support.waiting import until
from workflows.client.connection import check_temporal, connect_temporal, measured_runtime

DEAD_LETTERED = ("logflume_drain_invalid_messages_total", "dead_lettered")


@pytest.fixture
def settings(amqp_settings):
    return amqp_settings


async def test_a_drain_serves_its_metrics_and_readiness(settings, channel, pool, job_id):
    queued_at = datetime.now(UTC) - timedelta(seconds=90)
    exchange = await channel.get_exchange(contract.EXCHANGE)

    async def publish(uuid: str, number: int, **fields) -> None:
        body = broker.message(job_id, number, "four", uuid=uuid, **fields)
        await broker.publish(channel, body, timestamp=datetime.now(UTC))

    async with pool.acquire() as connection:
        await store_batch(connection, [part(job_id, 0, attempt="closed")])
        await write_whole(connection, job_id, b"")
    async with draining(settings) as drain:
        needs = {"rabbitmq": drain.queue}
        async with shown("drain", settings, needs, drain_readings(drain.queue)) as client:
            await until(lambda: _is_ready(client))
            before = await scrape(client)
            await publish("closed", 1)
            await publish("run", 0, meta={"queued_at": queued_at.isoformat()})
            await publish("run", 1, meta=["no", {"meta": 1}])
            await exchange.publish(aio_pika.Message(b"no part"), contract.ROUTING_KEY)

            await publish("run", 2)

            async def deltas() -> dict[tuple[str, ...], float]:
                now = await scrape(client)
                return {key: value - before.get(key, 0) for key, value in now.items()}

            async def is_done() -> bool:
                delta = await deltas()
                is_stored = delta["logflume_drain_parts_total",] >= 3
                is_acked = not delta["logflume_drain_unacked_messages",]
                is_signalled = delta["logflume_drain_signals_total",] >= 1
                return is_stored and is_acked and is_signalled and delta[DEAD_LETTERED] == 1

            await until(is_done)
            delta, now = await deltas(), await scrape(client)
            assert (await client.get("/health/ready")).json() == {
                "status": "ok",
                "dependencies": {"rabbitmq": "ok"},
            }
            assert await drain.queue() == (0, 1, 1)
            drain.stop()
            await until(lambda: _is_not_ready(client))
            assert (await client.get("/health/live")).status_code == 200
    assert delta["logflume_drain_parts_total",] == 3
    assert delta["logflume_drain_part_bytes_total",] == 12
    assert delta["logflume_drain_stale_parts_total",] == 1
    assert delta["logflume_drain_flush_parts_sum",] == 4
    assert delta["logflume_drain_flush_seconds_count",] >= 1
    assert delta["logflume_drain_publish_to_commit_seconds_count",] >= 1
    assert delta["logflume_drain_first_line_seconds_count",] == 1
    assert 90 <= delta["logflume_drain_first_line_seconds_sum",] < 120
    assert delta["logflume_drain_signal_seconds_count",] >= 1
    assert now["logflume_drain_consuming",] == 1
    assert now["logflume_drain_queue_consumers",] == 1
    assert now["logflume_drain_dead_letters",] in {0, 1}  # read every 5 s
    assert now["logflume_drain_prefetch_messages",] == settings.drain.prefetch
    assert not [key for key in now if key[0].startswith(("logflume_worker", "logflume_web"))]


async def _is_ready(client) -> bool:
    return (await client.get("/health/ready")).status_code == 200


async def _is_not_ready(client) -> bool:
    return not await _is_ready(client)


async def oldest_hours(connection) -> float:
    return (await read_stats(connection)).oldest_unarchived_seconds / 3600


async def test_stats_of_the_database(pool, job_id):
    async with pool.acquire() as connection:
        stats = await read_stats(connection)
        assert (stats.oldest_unarchived_seconds, stats.default_partition_parts) == (0, 0)
        assert not stats.is_under_maintenance
        # One fewer if midnight has passed since the servers started.
        assert stats.partitions_ahead >= 1
        began = datetime.now(UTC) - timedelta(hours=9)
        young, old, done = job_id, job_id + 10_000, job_id + 20_000
        await store_batch(connection, [part(young, 0, b"a")])
        await store_batch(connection, [part(old, 0, b"b", published_at=began)])
        older = part(done, 0, b"c", published_at=began - timedelta(hours=1), final=True)
        await store_batch(connection, [older])
        result = await aggregation.aggregate(connection, done, force=False, restore=False)
        assert 10 <= await oldest_hours(connection) < 10.5
        verified = await logs.mark_verified(connection, done, result.sha256)
        assert verified and verified.missing_parts == 0
        since = (datetime.now(UTC) - older.received_at).total_seconds()
        assert verified.seconds is not None and 0 <= verified.seconds <= since + 1
        assert 9 <= await oldest_hours(connection) < 9.5
        stray = await connection.fetchrow("SELECT log_id, attempt_id FROM log_parts LIMIT 1")
        await connection.execute(
            "INSERT INTO log_parts (log_id, attempt_id, created_at, number, final, content)"
            " VALUES ($1, $2, now() + interval '1 year', 9, false, '')",
            *stray,
        )
        assert (await read_stats(connection)).default_partition_parts == 1
        await switch_on(connection, timedelta(minutes=1))
        stats = await read_stats(connection)
        assert stats.is_under_maintenance and stats.default_partition_parts == 0
        await switch_off(connection)


async def test_logs_that_stay_in_a_phase_are_counted(pool, job_id):
    idle, ended, archiving, purging = range(job_id, job_id + 4)
    async with pool.acquire() as connection:
        for job in (idle, ended, archiving, purging):
            await store_batch(connection, [part(job, 0, b"a", final=job != idle)])
        for job in (archiving, purging):
            done = await aggregation.aggregate(connection, job, force=False, restore=False)
            if job == purging:
                await logs.mark_verified(connection, job, done.sha256)
        assert await count_overdue(connection, 0, 0) == OverdueLogs(0, 0, 0)
        await connection.execute("UPDATE log_parts SET created_at = now() - interval '31 min'")
        await connection.execute(
            "UPDATE logs SET aggregated_at = now() - interval '31 min',"
            " archived_at = now() - interval '31 min' WHERE aggregated_at IS NOT NULL"
        )
        assert await count_overdue(connection, 3600, 3600) == OverdueLogs(1, 1, 0)
        assert await count_overdue(connection, 0, 0) == OverdueLogs(2, 1, 1)


async def test_finding_the_oldest_unarchived_log_does_not_scan_archived_ones(pool):
    async with pool.acquire() as connection:
        await connection.execute(
            "INSERT INTO logs (job_id, archive_verified, archived_at, purged_at)"
            " SELECT n, true, now(), now() FROM generate_series(1, 20000) n"
        )
        await connection.execute("INSERT INTO logs (job_id) SELECT generate_series(30001, 30010)")
        await connection.execute("ANALYZE logs")
        rows = await connection.fetch(
            f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {OLDEST_UNARCHIVED}", EXAMINED
        )
        plan = json.loads(rows[0][0])[0]["Plan"]
        assert "logs_unarchived" in rows[0][0]
        assert plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] < 100


@activity.defn
async def fail() -> None:
    raise ApplicationError("intended", non_retryable=True)


@workflow.defn
class Failing:
    """Produces the failures whose counters the Temporal SDK creates on first use."""

    @workflow.run
    async def run(self) -> None:
        for execute in (workflow.execute_activity, workflow.execute_local_activity):
            with contextlib.suppress(FailureError):
                await execute(fail, start_to_close_timeout=timedelta(seconds=10))


def sdk_metrics_in(path: Path) -> set[str]:
    return set(re.findall(r"\btemporal_\w+", path.read_text()))


async def test_a_worker_serves_system_and_sdk_metrics(settings, pool, name):
    runtime, sdk_metrics = measured_runtime()
    client = await connect_temporal(settings.temporal, runtime=runtime)
    needs = {"temporal": lambda: check_temporal(client)}
    readings = worker_readings(pool, make_workflows(client, settings), settings.lifecycle)
    runner = UnsandboxedWorkflowRunner()
    async with (
        Worker(
            client,
            task_queue=name,
            workflows=[Failing],
            activities=[fail],
            workflow_runner=runner,
        ),
        shown("worker", settings, needs, readings, sdk_metrics) as http,
    ):
        await client.execute_workflow(Failing.run, id=name, task_queue=name)
        with pytest.raises(RPCError):
            await client.get_workflow_handle(f"no {name}").signal("any")
        metrics = await scrape(http)
        assert (await http.get("/health/ready")).status_code == 200
    assert metrics["logflume_worker_partitions_ahead",] >= 1
    assert metrics["logflume_worker_logs_stuck",] >= 0
    assert metrics["logflume_worker_overdue_logs", "archiving"] == 0
    assert metrics["logflume_worker_last_sweep_seconds",] >= 0
    assert not [key for key in metrics if key[0].startswith("logflume_drain")]
    monitoring = Path(__file__).parents[2] / "monitoring"
    used = sdk_metrics_in(monitoring / "alerts.yaml").union(
        *map(sdk_metrics_in, (monitoring / "dashboards").glob("*.json"))
    )
    assert len(used) > 10
    assert used - {key[0] for key in metrics} == set()


async def test_a_failed_reading_is_nan_and_counted(settings, pool):
    gone = await open_pool(settings.database)
    await gone.close()
    client = await connect_temporal(
        settings.temporal.model_copy(update={"address": "127.0.0.1:1"}), lazy=True
    )
    worker_metrics.PARTITIONS_AHEAD.set(5)
    needs = {"postgres": lambda: gone.fetchval("SELECT 1")}
    async with shown(
        "worker",
        settings,
        needs,
        worker_readings(gone, make_workflows(client, settings), settings.lifecycle),
    ) as http:
        before = REGISTRY.get_sample_value(
            "logflume_worker_reading_failures_total", {"source": "postgres"}
        )
        assert before is not None
        first, second = await scrape(http), await scrape(http)
        ready = await http.get("/health/ready")
    assert math.isnan(first["logflume_worker_partitions_ahead",])
    assert math.isnan(first["logflume_worker_logs_stuck",])
    # Scraped twice, read once.
    assert second["logflume_worker_reading_failures_total", "postgres"] == before + 1
    assert ready.status_code == 503
    assert "closed" in ready.json()["dependencies"]["postgres"]


async def test_a_taken_port_is_an_error_that_names_the_setting(settings):
    readings = Readings([], worker_metrics.READING_FAILURES)
    async with shown("worker", settings, {}, readings) as client:
        telemetry = settings.telemetry.model_copy(update={"port": client.base_url.port})
        with pytest.raises(ComponentError, match="LOGFLUME_TELEMETRY__PORT"):
            async with metrics_server("worker", telemetry, {}, readings):
                pass


async def test_the_web_counts_requests_by_route_not_by_path(settings, pool, job_id):
    async with serving(settings, pool) as web:
        before = parsed((await web.get("/metrics")).text)
        await web.get(f"/logs/{job_id}/raw")
        await web.get(f"/logs/{job_id}/raw", headers={"Authorization": ""})
        await web.get(f"/nowhere/{job_id}")
        after = parsed((await web.get("/metrics")).text)
    for status in ("404", "403"):
        for metric in ("requests_total", "request_duration_seconds_count"):
            key = (f"logflume_web_{metric}", "logflume", "GET", "/logs/{job_id}/raw", status)
            assert after[key] - before.get(key, 0) == 1
    assert [key for key in after if str(job_id) in "".join(key)] == []
    assert not [key for key in after if key[0].startswith(("logflume_drain", "logflume_worker"))]
