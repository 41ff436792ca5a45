"""The maintenance switch: pauses reads and writes of parts, which resume after it."""

import asyncio
import json
import os
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest

from db import aggregation, maintenance
from db.parts import store_batch
from logflume import contract
from logflume.errors import UnderMaintenance
from tests.support import broker
from tests.support.http_parts import body, many, runner_token
from tests.support.parts import content, part
from tests.support.services import draining, serving
from tests.support.waiting import until

HOUR = timedelta(hours=1)


@pytest.fixture
def settings(amqp_settings):
    return amqp_settings


async def test_drains_pause_and_resume(settings, channel, pool, job_id):

    async def publish(number: int) -> None:
        await broker.publish(channel, broker.message(job_id, number, f"{number},"))

    async def stored(count: int) -> bool:
        return await pool.fetchval("SELECT count(*) FROM log_parts") == count

    async def consumed() -> bool:
        queue = await channel.declare_queue(contract.QUEUE, durable=True)
        return queue.declaration_result.message_count == 0

    async with pool.acquire() as connection:
        async with draining(settings):
            await publish(0)
            await until(lambda: stored(1))
            await maintenance.switch_on(connection, HOUR)
            await publish(1)
            await until(consumed)
            assert await stored(1)
            await maintenance.switch_off(connection)
            await until(lambda: stored(2))
            await maintenance.switch_on(connection, timedelta(seconds=1))
            await publish(2)
            await until(lambda: stored(3))  # the switch expired
        assert await content(connection, job_id) == b"0,1,2,"
    queue = await channel.declare_queue(contract.QUEUE, durable=True)
    assert queue.declaration_result.message_count == 0


async def test_requests_for_parts_get_503_with_retry_after(
    settings, channel, pool, store, aggregate, job_id
):
    async with serving(settings, pool) as web, pool.acquire() as connection:
        await store((0, b"done", {"final": True}))
        await aggregate()
        await store_batch(connection, [part(job_id + 1, 0, b"open")])
        await maintenance.switch_on(connection, timedelta(seconds=300))
        responses = [
            await web.get(f"/log-parts/{job_id + 1}"),
            await web.put(f"/logs/{job_id}", content=b"x"),
            await web.post("/logs/multi", json=[{"job_id": job_id, "content": "x"}]),
            await web.get(f"/logs/{job_id + 1}"),
            await web.get(f"/logs/{job_id + 1}/raw"),
            await web.get(f"/logs/{job_id + 1}/stream"),
        ]
        for response in responses:
            assert response.status_code == 503, response.request.url
            assert 290 < int(response.headers["retry-after"]) <= 300
            assert "maintenance" in response.json()["error"]
        # Aggregated logs and the state of all logs are still readable.
        assert (await web.get(f"/logs/{job_id}")).json()["content"] == "done"
        assert (await web.get(f"/logs/{job_id + 1}?content=false")).status_code == 200
        assert (await web.get(f"/logs/{job_id + 1}/lifecycle")).status_code == 200
        await maintenance.switch_off(connection)
        assert (await web.get(f"/logs/{job_id + 1}")).json()["content"] == "open"


async def test_parts_over_http_are_accepted_and_stored_after_it(settings, channel, pool, job_id):
    """They only go to RabbitMQ; a runner's HTTP sink hangs after three minutes of 503."""
    token = runner_token(settings.stack.folder, job_id)
    parts = [body(b"1", job_id=job_id, number=1, tok=token)]

    async def stored() -> bool:
        return await pool.fetchval("SELECT count(*) FROM log_parts") == 2

    async with serving(settings, pool) as web, pool.acquire() as connection:
        await maintenance.switch_on(connection, HOUR)
        async with draining(settings):
            response = await web.put(f"/log-parts/{job_id}/0", json=body(b"0"))
            assert (response.status_code, response.content) == (204, b"")
            response = await web.post("/log-parts/multi", json=parts, headers=many(*parts))
            assert (response.status_code, response.content) == (204, b"")
            await maintenance.switch_off(connection)
            await until(stored)


async def test_switching_on_waits_for_open_transactions(pool, job_id):
    async with pool.acquire() as drain, pool.acquire() as operator:
        async with drain.transaction():
            await store_batch(drain, [part(job_id, 0, b"a")])
            switching = asyncio.create_task(maintenance.switch_on(operator, HOUR))
            waits = "SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = $1"
            await until(lambda: pool.fetchval(waits, operator.get_server_pid()))
            assert not switching.done()
        await switching
        for write in (
            store_batch(drain, [part(job_id, 1, b"b")]),
            aggregation.aggregate(drain, job_id, force=True, restore=False),
        ):
            with pytest.raises(UnderMaintenance):
                await write


def test_commands_set_show_and_clear_the_switch(settings):
    environment = {
        **os.environ,
        "LOGFLUME_DATABASE__URL": settings.database.url.get_secret_value(),
    }

    def run(*arguments: str) -> str:
        command = (
            sys.executable,
            "-c",
            "from logflume_cli.main import main; main()",
            "maintenance",
        )
        process = subprocess.run(
            [*command, *arguments], env=environment, capture_output=True, text=True, check=True
        )
        return process.stdout.strip()

    assert run("status") == "off"
    assert run("on", "--for", "30m").startswith("on until 20")
    left = re.fullmatch(r"on until \S+, (\d+) s from now", run("status"))
    assert datetime.fromisoformat(json.loads(run("status", "--json"))["until"]) > datetime.now(UTC)
    assert left and 1700 < int(left[1]) <= 1800
    assert run("off") == run("status") == "off"
