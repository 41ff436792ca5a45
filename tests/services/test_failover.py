"""An address of Postgres that leads to a standby for a while, and URLs with several hosts."""

import asyncio

import pytest
from prometheus_client import REGISTRY
from pydantic import SecretStr

from db import migrate
from db.connect import open_pool
from tests.support.broker import message, publish
from tests.support.parts import count_parts
from tests.support.services import draining, serving
from tests.support.soak.proxy import HOST, Proxy
from tests.support.standby import standby_of
from tests.support.waiting import until


@pytest.fixture
async def standby(servers, database_url):
    """The port of a standby of the tests' Postgres."""
    async with standby_of(servers) as port:
        yield port


def at(settings, place: str, query: str = ""):
    """The settings with Postgres at another address."""
    url = settings.database.url.get_secret_value()
    login, _, rest = url.rpartition("@")
    url = SecretStr(f"{login}@{place}/{rest.partition('/')[2]}{query}")
    database = settings.database.model_copy(update={"url": url})
    return settings.model_copy(update={"database": database})


def failures() -> float:
    return REGISTRY.get_sample_value("logflume_drain_flush_failures_total") or 0


async def test_sessions_on_a_standby_leave_the_pool(
    servers, amqp_settings, standby, channel, pool, job_id
):
    """The address leads to a standby, then to the primary again; no connection is cut then."""
    primary = servers.ports["postgres"]
    proxy = Proxy(primary)
    behind = at(amqp_settings, f"{HOST}:{await proxy.start()}")
    async with (
        await open_pool(behind.database) as web_pool,
        draining(behind),
        serving(behind, web_pool) as web,
    ):
        assert (await web.get("/health/ready")).status_code == 200
        proxy.lead_to(standby)
        proxy.turn("cut")
        proxy.turn("flow")
        before = failures()
        await publish(channel, message(job_id, 0, "0,"))

        async def has_failed() -> bool:
            return failures() > before + 1

        await until(has_failed)
        ready = await web.get("/health/ready")
        assert ready.status_code == 503
        assert "standby" in ready.json()["dependencies"]["postgres"]
        assert (await web.put(f"/logs/{job_id}", content=b"x")).status_code == 503
        proxy.lead_to(primary)

        async def is_stored() -> bool:
            return await count_parts(pool) == 1

        await until(is_stored)

        async def is_ready() -> bool:
            return (await web.get("/health/ready")).status_code == 200

        await until(is_ready)
    proxy.close()


async def test_a_url_with_several_hosts_leads_to_the_one_that_can_be_written_to(
    servers, settings, standby
):
    hosts = f"{HOST}:{standby},{HOST}:{servers.ports['postgres']}"
    several = at(settings, hosts, "?target_session_attrs=read-write").database
    several = type(several).model_validate(several.model_dump())
    async with await open_pool(several, 1) as pool:
        assert not await pool.fetchval("SELECT pg_is_in_recovery()")
    status = await asyncio.to_thread(migrate.run, "status", several.direct)
    assert "Nothing to deploy" in status
