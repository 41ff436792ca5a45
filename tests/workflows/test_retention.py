"""Rounds of retention, with the real activities."""

from dataclasses import replace

import pytest
from temporalio.service import RPCError
from temporalio.worker import Worker

from activities.types import archive_queue
from db import holds
from logflume.archive.store import Archive, key
from logflume.errors import ArchiveRefused
from logflume.settings.stages import RetentionPolicy, RetentionSettings
from logflume_cli import schedules
from logflume_cli.schedules import recurring
from tests.support.histories import record
from tests.support.retention import OLD, ROWS, Keeper
from tests.support.waiting import until
from workflows import retention
from workflows.client.connection import connect_temporal
from workflows.retention import (
    RETENTION_ID,
    PolicyReport,
    Retention,
    RetentionInput,
    RetentionResult,
)


class RefusingArchive(Archive):
    """The real archive, which refuses some jobs."""

    refused: set[int]

    async def delete_many(self, job_ids):
        for job_id in self.refused.intersection(job_ids):
            raise ArchiveRefused(f"job {job_id} is refused")
        await super().delete_many(job_ids)


class Rounds(Keeper):
    """Runs rounds in sequence; the history of the last one is recorded."""

    def __init__(self, pool, settings, client):
        self.archive = RefusingArchive(settings.s3, 2)
        self.archive.refused = set()
        super().__init__(pool, settings, self.archive)
        self.client = client

    async def run(self, *policies, logs=10_000) -> list[PolicyReport]:
        self.handle = await self.client.start_workflow(
            Retention.run,
            RetentionInput([*policies], logs),
            id=RETENTION_ID,
            task_queue=self.settings.temporal.task_queue,
        )
        result: RetentionResult = await self.handle.result()
        return result.policies


@pytest.fixture
async def rounds(request, environment, pool, settings):
    rounds = Rounds(pool, settings, environment.client)
    queue = settings.temporal.task_queue
    async with (
        Worker(environment.client, task_queue=queue, workflows=[Retention]),
        Worker(
            environment.client, task_queue=archive_queue(queue), activities=rounds.activities.all
        ),
    ):
        yield rounds
        if request.config.getoption("--record-histories"):
            await record(rounds.handle, f"retention_{request.node.name.removeprefix('test_')}")


async def test_a_round_deletes_pages_of_expired_logs_except_held_ones(
    rounds, pool, numbers, monkeypatch
):
    monkeypatch.setattr(retention, "PAGE_LOGS", 2)
    jobs = [next(numbers) for _ in range(5)]
    for job_id in jobs:
        await rounds.finish(job_id, b"text", days=1)
    await rounds.age(60)
    async with pool.acquire() as connection:
        await holds.put_on(connection, jobs[2], "case 7")
    [report] = await rounds.run(ROWS)
    assert report == PolicyReport("rows", examined=5, logs=4, bytes=16, rows=4, held=1)
    assert rounds.keys() == [key(jobs[2])]
    assert await pool.fetchval("SELECT array_agg(job_id) FROM logs") == [jobs[2]]
    assert (await rounds.run(ROWS))[0] == PolicyReport("rows", examined=1, held=1)


async def test_a_failing_policy_does_not_delay_the_others(rounds, pool, numbers):
    small, large = next(numbers), next(numbers)
    await rounds.finish(large, b"longer text", days=0)
    await rounds.finish(small, b"text", days=40)
    rounds.archive.refused.add(large)
    failed, fine = await rounds.run(
        replace(OLD, name="large", older_than_days=10, larger_than_bytes=5),
        replace(OLD, name="all", older_than_days=10),
    )
    assert (failed.policy, failed.logs, fine.logs, fine.error) == ("large", 1, 1, "")
    assert f"job {large} is refused" in failed.error
    assert rounds.keys() == [key(large)]
    # The row is cleared all the same and records a pending deletion, which the sweep finds.
    pending = "SELECT job_id FROM logs WHERE archive_outdated AND NOT empty"
    assert await pool.fetchval(pending) == large


async def test_the_schedule_continues_rounds_and_is_removed_without_policies(
    settings, pool, numbers, monkeypatch
):
    """On a schedule of the real server, which passes a round the result of the last one."""
    keeper = Keeper(pool, settings)
    for _ in range(3):
        await keeper.finish(next(numbers), b"small", days=0)
    await keeper.finish(large := next(numbers), b"large enough")
    monkeypatch.setattr(
        schedules,
        "recurring",
        lambda it: [row for row in recurring(it) if row.name == RETENTION_ID],
    )
    policy = RetentionPolicy(
        name="large", older_than_days=30, delete="archive", larger_than_bytes=10
    )
    given = settings.model_copy(update={"retention": RetentionSettings(policies=(policy,), logs=2)})
    client = await connect_temporal(settings.temporal)
    queue = settings.temporal.task_queue
    async with (
        Worker(client, task_queue=queue, workflows=[Retention]),
        Worker(client, task_queue=archive_queue(queue), activities=keeper.activities.all),
    ):
        [(_, is_new)] = await schedules.apply_schedules(given)
        assert is_new
        schedule = client.get_schedule_handle(RETENTION_ID)
        looked = [await trigger(client, schedule, count) for count in (1, 2, 3)]
        assert [one.examined for one in looked] == [2, 2, 0]
        assert [one.logs for one in looked] == [0, 1, 0]
        assert keeper.keys().count(key(large)) == 0
        assert looked[0].after.id and looked[1].after.id and not looked[2].after.id
    assert await schedules.apply_schedules(settings) == []
    with pytest.raises(RPCError, match="not found"):
        await schedule.describe()
    assert await schedules.apply_schedules(settings) == []


async def trigger(client, schedule, count) -> PolicyReport:
    """Run another round; returns its report."""
    await schedule.trigger()

    async def ran() -> bool:
        info = (await schedule.describe()).info
        return len(info.recent_actions) == count and not info.running_actions

    await until(ran)
    run = (await schedule.describe()).info.recent_actions[-1].action
    handle = client.get_workflow_handle(run.workflow_id, result_type=RetentionResult)
    return (await handle.result()).policies[0]
