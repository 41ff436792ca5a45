"""RabbitMQ's memory alarm: readiness names it, and parts over HTTP are refused at once."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from logflume import amqp
from logflume.observability.health import check_all
from tests.support.broker import message, publish, rabbitmqctl
from tests.support.http_parts import body
from tests.support.parts import count_parts
from tests.support.services import draining, serving
from tests.support.waiting import until


@asynccontextmanager
async def alarm(servers):
    """RabbitMQ believes that it is short of memory."""
    watermark = ("set_vm_memory_high_watermark",)
    try:
        await asyncio.to_thread(rabbitmqctl, servers, *watermark, "absolute", "1MB")
        yield
    finally:
        await asyncio.to_thread(rabbitmqctl, servers, *watermark, "0.4")


async def is_ready(web) -> bool:
    return (await web.get("/health/ready")).status_code == 200


@pytest.fixture
def settings(amqp_settings):
    return amqp_settings


async def test_under_an_alarm_parts_over_http_are_refused_at_once_and_readiness_names_it(
    servers, settings, pool, channel, job_id, monkeypatch
):
    monkeypatch.setattr(amqp, "PUBLISH_SECONDS", 3600)  # an answer does not wait for it
    path = f"/log-parts/{job_id}"
    async with serving(settings, pool) as web, draining(settings) as drain:
        assert (await web.put(f"{path}/0", json=body())).status_code == 204
        async with alarm(servers):
            # RabbitMQ reports the alarm to a connection when it publishes.
            refused = await asyncio.gather(*(web.put(f"{path}/{n}", json=body()) for n in range(9)))
            assert {one.status_code for one in refused} == {503}
            assert all(int(one.headers["retry-after"]) > 0 for one in refused)
            assert (await web.put(f"{path}/1", json=body())).status_code == 503
            response = await web.get("/health/ready")
            assert response.status_code == 503
            assert "low on memory" in response.json()["dependencies"]["rabbitmq"]
            states = await check_all({"alarm": drain.check_publishing, "queue": drain.queue})
            assert "low on memory" in states["alarm"] and states["queue"] == "ok"
        await until(lambda: is_ready(web))
        assert (await web.put(f"{path}/10", json=body())).status_code == 204
        assert (await check_all({"alarm": drain.check_publishing}))["alarm"] == "ok"


async def test_a_drain_stores_and_acknowledges_parts_under_an_alarm(
    servers, settings, pool, channel, job_id
):
    await publish(channel, b"invalid", *(message(job_id, n, f"{n},") for n in range(20)))

    async def has_parts() -> bool:
        return await count_parts(pool) == 20

    async with alarm(servers), draining(settings):
        await until(has_parts)
