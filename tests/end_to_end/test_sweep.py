"""The sweep on the running system: its schedule, and the loss of Temporal's data."""

import asyncio
import io
import json
import shutil
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg
import psutil
import pytest

from db.parts import store_batch
from logflume.settings import load_settings
from logflume_cli.devstack.fleet import Job, compare_fleet, follow_fleet, play_fleet
from logflume_cli.devstack.runner import new_job_ids
from logflume_cli.devstack.samples import fleet
from logflume_cli.devstack.stack import LocalStack
from tests.support import processes
from tests.support.parts import part
from tests.support.processes import LOGFLUME
from tests.support.waiting import until

pytestmark = pytest.mark.timeout(300)

BIN = Path(sys.executable).parent


# The sweep runs on triggers and finds logs that are a second old.
SETTINGS = {
    "lifecycle": {"purge_seconds": 1, "settle_seconds": 1, "gap_seconds": 1},
    "sweep": {"every_seconds": 24 * 3600, "after_seconds": 1},
    "s3": {"longest_request_seconds": 1},
}


@pytest.fixture
def settings(stack, monkeypatch):
    monkeypatch.setenv("LOGFLUME_STACK__DATA_DIR", str(stack.home.data_dir))
    return load_settings()


@pytest.fixture
def cli(settings, tmp_path):
    """Temporal's own command."""

    def run(*arguments: str) -> Any:
        options = ("--address", settings.temporal.address, "--output", "json")
        done = processes.run(BIN / "temporal", *arguments, *options, env={"HOME": str(tmp_path)})
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout) if done.stdout.strip() else None

    return run


def apply() -> str:
    done = processes.run(LOGFLUME, "schedules", "apply")
    assert done.returncode == 0, done.stderr
    return done.stdout


def schedule(cli) -> dict:
    return cli("schedule", "describe", "--schedule-id", "sweep")


SWEPT = "TemporalScheduledById = 'sweep' AND ExecutionStatus = 'Completed'"
MAINTAINED = "WorkflowType = 'PartitionMaintenance' AND PartitionState = 'clean'"


def listed(cli, query: str = SWEPT) -> list[dict]:
    """The matching workflows, newest first."""
    return cli("workflow", "list", "--query", query) or []


def until_listed(cli, count: int, query: str = SWEPT) -> None:
    deadline = time.monotonic() + 60
    while len(listed(cli, query)) < count:
        assert time.monotonic() < deadline
        time.sleep(0.2)


def trigger(cli) -> None:
    """Run a sweep now."""
    before = len(listed(cli))
    cli("schedule", "trigger", "--schedule-id", "sweep")
    until_listed(cli, before + 1)


def test_the_stack_creates_schedules_that_operators_control(stack, settings, cli):
    names = {one["scheduleId"] for one in cli("schedule", "list")}
    assert names == {"sweep", "partition-maintenance"}
    maintenance = "partition-maintenance: updated, every 3600 s\n"
    for _ in range(4):  # idempotent; Temporal's threads must not crash the command at exit
        assert apply() == "sweep: updated, every 86400 s\n" + maintenance
    made = schedule(cli)
    assert made["schedule"]["spec"]["interval"][0]["interval"] == "86400s"
    assert made["schedule"]["policies"]["overlapPolicy"] == "SCHEDULE_OVERLAP_POLICY_SKIP"

    pause = ("schedule", "toggle", "--schedule-id", "sweep", "--reason", "by hand")
    cli(*pause, "--pause")
    apply()
    assert schedule(cli)["schedule"]["state"] == {"paused": True, "notes": "by hand"}
    cli(*pause, "--unpause")
    apply()
    assert "paused" not in schedule(cli)["schedule"]["state"]

    cli("schedule", "trigger", "--schedule-id", "partition-maintenance")
    until_listed(cli, 1, MAINTAINED)

    before = len(listed(cli))
    cli(
        *("schedule", "backfill", "--schedule-id", "sweep", "--overlap-policy", "BufferAll"),
        *("--start-time", "2026-01-01T00:00:00Z", "--end-time", "2026-01-02T12:00:00Z"),
    )
    until_listed(cli, before + 2)

    assert processes.run(LOGFLUME, "doctor").returncode == 0
    cli("schedule", "delete", "--schedule-id", "sweep")
    assert "logflume schedules apply" in processes.run(LOGFLUME, "doctor").stdout
    assert apply() == "sweep: created, every 86400 s\n" + maintenance


async def test_an_orphaned_log_is_archived_after_a_trigger(stack, settings, cli):
    [job_id] = new_job_ids(1)
    connection = await asyncpg.connect(settings.database.url.get_secret_value())
    await store_batch(connection, [part(job_id, 0, b"orphaned"), part(job_id, 1, final=True)])
    is_old = "SELECT updated_at < now() - interval '1.2 s' FROM logs WHERE job_id = $1"
    await until(lambda: connection.fetchval(is_old, job_id))
    await asyncio.to_thread(trigger, cli)
    async with asyncio.timeout(60):
        while not await connection.fetchval(
            "SELECT purged_at IS NOT NULL FROM logs WHERE job_id = $1", job_id
        ):
            await asyncio.sleep(0.1)
    await connection.close()


async def test_every_log_is_archived_after_temporal_lost_its_data(stack, settings, cli):
    jobs = [
        Job(job_id, name, partial(io.BytesIO, content))
        for job_id, (name, content) in zip(new_job_ids(12), fleet(11, 12), strict=True)
    ]
    await stack.down(["worker"])  # no workflow progresses, so all of them are lost
    await play_fleet(settings.amqp.url.get_secret_value(), jobs)
    connection = await asyncpg.connect(settings.database.url.get_secret_value())
    stored = (
        "SELECT count(*) = $2 FROM log_parts p JOIN logs l ON l.id = p.log_id"
        " WHERE l.job_id = ANY ($1)"
    )
    parts = sum(job.played.parts for job in jobs if job.played)
    await until(lambda: connection.fetchval(stored, [job.job_id for job in jobs], parts))
    await connection.close()
    await stack.down(["drain"])  # it sends its last signals
    assert len(await asyncio.to_thread(lifecycles, cli)) == len(jobs)
    kill(stack, "temporal")
    shutil.rmtree(stack.home.data_dir / "temporal")
    await stack.up()
    assert lifecycles(cli) == []
    await asyncio.to_thread(trigger, cli)
    await follow_fleet(settings.database.url.get_secret_value(), jobs)
    equal = await compare_fleet(settings.s3, jobs)
    assert [job.name for job in jobs if not equal[job.job_id]] == []


def lifecycles(cli) -> list[dict]:
    query = "WorkflowType = 'LogLifecycle' AND ExecutionStatus = 'Running'"
    return cli("workflow", "list", "--query", query) or []


def kill(stack: LocalStack, name: str) -> None:
    process = psutil.Process(next(item.pid for item in stack.status() if item.name == name))
    process.kill()
    process.wait(10)
