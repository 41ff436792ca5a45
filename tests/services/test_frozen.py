"""Frozen servers: their connections stay open and silent."""

import math

import pytest

from activities.metrics import readings
from logflume_cli.services import lazy_workflows
from tests.support.metrics import scrape, shown
from tests.support.processes import frozen
from tests.support.services import serving

pytestmark = pytest.mark.timeout(60)


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
    async with shown(
        "worker", settings, {}, readings(pool, workflows, settings.lifecycle)
    ) as worker:
        with frozen(servers, "postgres"):
            samples = await scrape(worker)
    assert math.isnan(samples["logflume_worker_partitions_ahead",])
    assert samples["logflume_worker_logs_stuck",] >= 0
