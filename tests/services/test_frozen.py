"""Frozen servers: their connections stay open and silent."""

import math
import signal
from contextlib import contextmanager

import psutil
import pytest

from activities.metrics import readings
from logflume_cli.devstack.stack import LocalStack
from logflume_cli.services import lazy_workflows
from tests.support.metrics import scrape, shown
from tests.support.services import serving

pytestmark = pytest.mark.timeout(60)


@contextmanager
def frozen(servers, *names: str):
    """Stop servers and their child processes, as on a host that hangs."""
    pids = [item.pid for item in LocalStack(servers.data_dir).status() if item.name in names]
    processes = [
        one for pid in pids for one in (psutil.Process(pid), *psutil.Process(pid).children())
    ]
    try:
        for process in processes:
            process.send_signal(signal.SIGSTOP)
        yield
    finally:
        for process in reversed(processes):
            process.send_signal(signal.SIGCONT)


async def test_readiness_names_the_frozen_servers(servers, amqp_settings, pool):
    async with serving(amqp_settings, pool) as web:
        assert (await web.get("/health/ready")).status_code == 200
        with frozen(servers, "postgres", "rabbitmq"):
            response = await web.get("/health/ready")
        assert response.status_code == 503
        dependencies = response.json()["dependencies"]
        assert [name for name, status in dependencies.items() if status != "ok"] == [
            "postgres",
            "rabbitmq",
        ]


async def test_gauges_read_from_a_frozen_postgres_are_nan(servers, settings, pool):
    workflows = await lazy_workflows(settings)
    async with shown("worker", settings, {}, readings(pool, workflows)) as worker:
        with frozen(servers, "postgres"):
            samples = await scrape(worker)
    assert math.isnan(samples["logflume_worker_partitions_ahead",])
    assert samples["logflume_worker_logs_stuck",] >= 0
