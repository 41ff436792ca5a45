"""The maintenance of partitions as a workflow, on real Postgres."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
from temporalio import activity
from temporalio.client import Client, WorkflowHandle
from temporalio.worker import Worker

from activities.partitions import PartitionActivities
from activities.types import DROP_PARTITION, RESCUE_PARTS, DropInput, PartitionOptions, Rescued
from db import reading
from db.parts import store_batch
from tests.support.histories import record
from tests.support.options import partition_options
from tests.support.partitions import ago, make_past, name_of, names, old_part
from tests.support.parts import content, finish, part
from tests.support.waiting import until
from workflows.partitions import (
    PARTITION_MAINTENANCE_ID,
    PARTITION_STATE,
    MaintenanceReport,
    PartitionMaintenance,
)

pytestmark = pytest.mark.usefixtures("at_any_hour")

OPTIONS = partition_options(premake=8, lock_timeout_seconds=0.2)


class WatchedPartitions(PartitionActivities):
    """The real activities; counts the tries to drop, with a hook before the first."""

    tries = 0
    meanwhile: Any = None
    rescue_fails_after = False

    @activity.defn(name=DROP_PARTITION)
    async def drop_partition(self, argument: DropInput) -> bool:
        self.tries += 1
        if self.meanwhile:
            meanwhile, self.meanwhile = self.meanwhile, None
            await meanwhile()
        return await super().drop_partition(argument)

    @activity.defn(name=RESCUE_PARTS)
    async def rescue_parts(self, name: str) -> Rescued:
        rescued = await super().rescue_parts(name)
        if self.rescue_fails_after and rescued.logs:
            self.rescue_fails_after = False
            activity.heartbeat((rescued.parts, rescued.logs))
            raise OSError("the answer was lost")
        return rescued


@dataclass
class Maintenance:
    """A worker of the workflow, and its client."""

    client: Client
    task_queue: str
    activities: WatchedPartitions

    async def start(self, options: PartitionOptions = OPTIONS) -> WorkflowHandle[Any, Any]:
        return await self.client.start_workflow(
            PartitionMaintenance.run,
            options,
            id=PARTITION_MAINTENANCE_ID,
            task_queue=self.task_queue,
        )

    async def run(self, options: PartitionOptions = OPTIONS) -> MaintenanceReport:
        report: MaintenanceReport = await (await self.start(options)).result()
        return report


@pytest.fixture
async def maintenance(request, environment, pool, settings) -> AsyncIterator[Maintenance]:
    activities = WatchedPartitions(pool)
    task_queue = settings.temporal.task_queue
    async with Worker(
        environment.client,
        task_queue=task_queue,
        workflows=[PartitionMaintenance],
        activities=activities.all,
    ):
        yield Maintenance(environment.client, task_queue, activities)
        if request.config.getoption("--record-histories"):
            handle = environment.client.get_workflow_handle(PARTITION_MAINTENANCE_ID)
            await record(handle, request.node.name)


@pytest.fixture
async def connection(pool):
    async with pool.acquire() as connection:
        await make_past(connection)
        yield connection


async def test_expired_partitions_are_dropped_and_unarchived_parts_moved(
    maintenance, connection, job_id
):
    finished, stuck, late = job_id, job_id + 1000, job_id + 2000
    for job in (finished, stuck, late):
        await store_batch(
            connection,
            [
                old_part(job, 0, b"a\0b ", at=ago(9)),
                old_part(job, 1, b"loses", at=ago(7)),
                old_part(job, 1, b"\xff counts", at=ago(5)),
                old_part(job, 2, final=True, at=ago(3)),
            ],
        )
    await finish(connection, finished)
    await finish(connection, late)
    await store_batch(connection, [old_part(late, 3, b" late", at=ago(1))])
    report = await maintenance.run()
    assert (len(report.created), len(report.dropped), report.left, report.errors) == (1, 8, [], [])
    assert (report.rescued_parts, report.rescued_logs) == (4 + 5, 2)
    assert report.state == "rescued"
    assert await content(connection, stuck) == b"a\0b \xff counts"
    assert await content(connection, late) == b"a\0b \xff counts late"
    log = await reading.find(connection, finished)
    assert not await connection.fetchval("SELECT count(*) FROM log_parts WHERE log_id = $1", log.id)
    assert await connection.fetchval(
        "SELECT count(*) FROM pg_stat_all_tables WHERE relname = 'log_parts'"
        " AND last_analyze IS NOT NULL"
    )


async def test_a_run_with_nothing_to_do_does_nothing(maintenance, connection):
    await maintenance.run()
    before = await names(connection)
    report = await maintenance.run()
    assert report == MaintenanceReport()
    assert report.state == "clean"
    assert await names(connection) == before


async def test_the_result_is_a_search_attribute(maintenance, connection, job_id):
    await store_batch(connection, [old_part(job_id, 0, b"text", at=ago(4))])
    handle = await maintenance.start()
    await handle.result()
    run = await handle.describe()
    assert run.typed_search_attributes.get(PARTITION_STATE) == "rescued"


async def test_a_log_reopened_before_the_drop_is_rescued_too(maintenance, connection, job_id):
    await store_batch(connection, [old_part(job_id, 0, b"text", at=ago(4), final=True)])
    await finish(connection, job_id)

    async def reopen() -> None:
        await connection.execute("UPDATE logs SET archive_verified = false")

    maintenance.activities.meanwhile = reopen
    # The partitions before it are dropped without checking this one.
    report = await maintenance.run()
    assert (report.rescued_logs, len(report.dropped), report.left) == (1, 8, [])
    assert await connection.fetchval("SELECT content FROM log_parts") == b"text"


async def test_parts_moved_before_a_failure_are_counted_once(maintenance, connection, job_id):
    for job in (job_id, job_id + 1000):
        await store_batch(connection, [old_part(job, 0, b"text", at=ago(4))])
    maintenance.activities.rescue_fails_after = True
    report = await maintenance.run()
    assert (report.rescued_parts, report.rescued_logs) == (2, 2)


async def test_an_open_transaction_delays_maintenance_but_no_writer(
    maintenance, pool, connection, job_id
):
    async with pool.acquire() as drain:
        async with connection.transaction():
            await connection.fetch("SELECT FROM log_parts")
            handle = await maintenance.start(partition_options(premake=7))
            running = asyncio.create_task(handle.result())
            for number in range(20):
                # Each is stored while the transaction is open and maintenance tries.
                await store_batch(drain, [part(job_id, number, b"%d," % number)])
                await until_retried(maintenance, number // 5)
            assert not running.done()
            assert len(await names(drain)) == 8 + 10
        report = await running
    assert (len(report.dropped), report.left, report.errors) == (8, [], [])
    assert await content(connection, job_id) == b"".join(b"%d," % n for n in range(20))


async def until_retried(maintenance, times) -> None:
    async def tried() -> bool:
        return maintenance.activities.tries > times

    await until(tried)


async def test_a_partition_locked_for_an_hour_is_left_to_the_next_run(
    maintenance, pool, connection
):
    async with pool.acquire() as other, other.transaction():
        await other.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
        await other.fetch("SELECT FROM log_parts")
        report = await maintenance.run(partition_options(premake=7))
        assert (len(report.left), report.dropped, report.state) == (8, [], "left")
        assert "lock timeout" in report.errors[0]
    report = await maintenance.run()
    assert (len(report.dropped), report.state) == (8, "clean")


async def test_a_missing_current_partition_does_not_stop_the_rest(maintenance, connection):
    """Maintenance did not run for too long: parts of today are in the default partition."""
    await connection.execute(f"DROP TABLE {await name_of(connection, ago(0))}")
    now = await connection.fetchval("SELECT now()")
    await store_batch(connection, [old_part(1, 0, b"text", at=now)])
    report = await maintenance.run()
    assert (len(report.created), len(report.dropped)) == (1, 8)
    assert report.state == "left"
    assert "the default partition has parts of" in " ".join(report.errors)
    assert await content(connection, 1) == b"text"
