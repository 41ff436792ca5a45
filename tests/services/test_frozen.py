"""Servers that hang: connections to them stay, and nothing comes over them."""

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
    """Stop servers and the processes they started, as on a host that hangs."""
    tops = [item.pid for item in LocalStack(servers.data_dir).status() if item.name in names]
    found = [one for pid in tops for one in (psutil.Process(pid), *psutil.Process(pid).children())]
    try:
        for process in found:
            process.send_signal(signal.SIGSTOP)
        yield
    finally:
        for process in reversed(found):
            process.send_signal(signal.SIGCONT)


async def test_the_web_names_those_that_hang(servers, amqp_settings, pool):
    async with serving(amqp_settings, pool) as web:
        assert (await web.get("/health/ready")).status_code == 200
        with frozen(servers, "postgres", "rabbitmq"):
            found = await web.get("/health/ready")
        assert found.status_code == 503
        told = found.json()["dependencies"]
        assert [name for name, said in told.items() if said != "ok"] == ["postgres", "rabbitmq"]


async def test_figures_of_a_postgres_that_hangs_are_no_numbers(servers, settings, pool):
    workflows = await lazy_workflows(settings)
    async with shown("worker", settings, {}, readings(pool, workflows)) as worker:
        with frozen(servers, "postgres"):
            found = await scrape(worker)
    assert math.isnan(found["logflume_worker_partitions_ahead",])
    assert found["logflume_worker_logs_stuck",] >= 0
