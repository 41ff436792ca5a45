"""An address of Postgres that leads to a standby for a while, and URLs with several hosts."""

import asyncio
import re
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import asyncpg
import pytest
from prometheus_client import REGISTRY
from pydantic import SecretStr

from activities.logs import ArchiveActivities, DatabaseActivities
from activities.sweep import SweepActivities
from activities.types import Timeline
from db import migrate
from db.connect import open_pool
from logflume.archive.store import Archive
from logflume_cli.services import make_workflows
from tests.support.broker import message, publish
from tests.support.parts import count_parts
from tests.support.processes import LOGFLUME, environment, run
from tests.support.s3 import archived
from tests.support.services import draining, serving
from tests.support.soak.proxy import HOST, Proxy
from tests.support.standby import standby_of
from tests.support.sweeper import last_sweep
from tests.support.waiting import until
from tests.support.workers import lifecycle_workers
from workflows.client.connection import connect_temporal, ensure_search_attributes
from workflows.client.schedules import Recurring, apply
from workflows.client.signal_history import SignalHistory
from workflows.sweep import Sweep, SweepInput


class Standby(NamedTuple):
    """A standby of the tests' Postgres, and what it streams through."""

    port: int
    link: Proxy


@pytest.fixture
async def standby(servers, database_url):
    """A running standby that has the test's database."""
    link = Proxy(servers.ports["postgres"])
    async with standby_of(servers, await link.start()) as port:
        yield Standby(port, link)
        link.close()


def at(settings, place: str, query: str = ""):
    """The settings with Postgres at another address."""
    url = settings.database.url.get_secret_value()
    login, _, rest = url.rpartition("@")
    url = SecretStr(f"{login}@{place}/{rest.partition('/')[2]}{query}")
    database = settings.database.model_copy(update={"url": url})
    return settings.model_copy(update={"database": database})


def metric(name: str) -> float:
    return REGISTRY.get_sample_value(name) or 0


def failures() -> float:
    return metric("logflume_drain_flush_failures_total")


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
        proxy.lead_to(standby.port)
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
    hosts = f"{HOST}:{standby.port},{HOST}:{servers.ports['postgres']}"
    several = at(settings, hosts, "?target_session_attrs=read-write").database
    several = type(several).model_validate(several.model_dump())
    async with await open_pool(several, 1) as pool:
        assert not await pool.fetchval("SELECT pg_is_in_recovery()")
    status = await asyncio.to_thread(migrate.run, "status", several.direct)
    assert "Nothing to deploy" in status


class Jobs(NamedTuple):
    """Jobs by what the standby that is promoted lacks of their logs."""

    archived: int  # parts in the middle; it is archived and purged without them
    going: int  # the last parts
    gone: int  # everything
    whole: int  # nothing


class System:
    """A drain and workers that reach Postgres through `address`, and the scheduled sweep."""

    def __init__(self, settings, channel, client):
        self.settings = settings
        self.channel = channel
        self.client = client
        self.queue = settings.temporal.task_queue
        self.schedule = client.get_schedule_handle(self.queue)
        self.sweeps = 0

    @asynccontextmanager
    async def up(self):
        day = timedelta(days=1)
        sweeps = Recurring(self.queue, Sweep.run, SweepInput(600, 0.5, 10), "", day, day)
        async with await open_pool(self.settings.database) as pool, draining(self.settings):
            database = DatabaseActivities(pool)
            archive = ArchiveActivities(pool, Archive(self.settings.s3, 4))
            sweep = SweepActivities(pool, make_workflows(self.client, self.settings)).sweep_page
            async with lifecycle_workers(
                self.client, self.queue, database, archive, Sweep, [sweep]
            ):
                await apply(self.client, self.queue, sweeps)
                yield
                await self.schedule.delete()

    async def sweep(self) -> Timeline:
        self.sweeps += 1
        await self.schedule.trigger()
        _, result = await last_sweep(self.client, self.schedule, self.sweeps)
        return result.timeline

    async def publish(self, job_id, *numbers, final=False):
        bodies = [message(job_id, number, f"{number},", final=final) for number in numbers]
        await publish(self.channel, *bodies, timestamp=datetime.now(UTC))

    async def until_signalled(self, jobs):
        history = SignalHistory(self.client, datetime.now(UTC))

        async def are() -> bool:
            found = [await history.of(job_id) for job_id in jobs]
            return [one and one.parts for one in found] == [*jobs.values()]

        await until(are)

    async def reconcile(self, since, folder) -> dict[int, str]:
        command = (LOGFLUME, "reconcile", "--restored-to", str(since))
        done = await asyncio.to_thread(run, *command, env=environment(self.settings, folder))
        assert done.returncode == 1, done
        found = re.findall(r"^job (\d+): (.*)$", done.stdout, re.MULTILINE)
        return {int(job_id): line for job_id, line in found}


async def test_after_a_promotion_every_log_that_lost_parts_is_named(
    servers, amqp_settings, standby, channel, numbers, tmp_path, capsys
):
    jobs = Jobs(*(next(numbers) for _ in Jobs._fields))
    began = datetime.now(UTC)
    address = Proxy(servers.ports["postgres"])
    settings = at(amqp_settings, f"{HOST}:{await address.start()}")
    client = await connect_temporal(settings.temporal)
    await ensure_search_attributes(client)
    there = at(amqp_settings, f"{HOST}:{standby.port}").database.url.get_secret_value()
    promoted = await asyncpg.connect(there)
    system = System(settings, channel, client)
    async with system.up():
        before = await system.sweep()
        for job_id in (jobs.archived, jobs.going, jobs.whole):
            await system.publish(job_id, 0, 1)
        await until(lambda: promoted.fetchval("SELECT count(*) = 6 FROM log_parts"))
        standby.link.turn("stall")
        for job_id in (jobs.archived, jobs.going):
            await system.publish(job_id, 2, 3)
        await system.publish(jobs.gone, 0)
        await system.until_signalled({jobs.archived: 4, jobs.going: 4, jobs.gone: 1})

        assert await promoted.fetchval("SELECT pg_promote()")
        address.lead_to(standby.port)
        address.turn("cut")
        address.turn("flow")
        await system.publish(jobs.archived, 4, final=True)
        await system.publish(jobs.whole, 2, final=True)
        purged = "SELECT count(*) = 2 FROM logs WHERE purged_at IS NOT NULL"
        await until(lambda: promoted.fetchval(purged))
        after = await system.sweep()
        named = await system.reconcile(began, tmp_path / "cli")
    await promoted.close()
    address.close()

    assert archived(settings, jobs.archived) == b"0,1,4,"
    assert archived(settings, jobs.whole) == b"0,1,2,"
    lost = "up to {} parts are lost: {} were stored and acknowledged, {} exist"
    assert {job_id: line for job_id, line in named.items() if job_id in jobs} == {
        jobs.archived: lost.format(2, 5, 3),
        jobs.going: lost.format(2, 4, 2),
        jobs.gone: lost.format(1, 1, 0),
    }
    assert before.changed_at == 0
    assert after.changed_at > began.timestamp()
    assert metric("logflume_worker_timeline_changed_timestamp_seconds") == after.changed_at
    assert capsys.readouterr().err.count("timeline_changed") == 1
