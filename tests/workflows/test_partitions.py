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
from activities.types import DROP_PARTITION, RESCUE_PARTS, DropOrder, PartitionOptions, Rescued
from db import reading
from db.parts import store_batch
from tests.support.histories import record
from tests.support.partitions import ago, finish, make_past, name_of, names, old_part
from tests.support.parts import content, part
from tests.support.waiting import until
from workflows.partitions import PartitionMaintenance
from workflows.types import PARTITION_MAINTENANCE_ID, PARTITION_STATE, MaintenanceReport

pytestmark = pytest.mark.usefixtures("at_any_hour")

OPTIONS = PartitionOptions(premake=8, lock_timeout_seconds=0.2)


class WatchedPartitions(PartitionActivities):
    """The real activities; counts the tries to drop, and does something before the first."""

    tries = 0
    meanwhile: Any = None
    rescue_fails_after = False

    @activity.defn(name=DROP_PARTITION)
    async def drop_partition(self, order: DropOrder) -> bool:
        self.tries += 1
        if self.meanwhile:
            meanwhile, self.meanwhile = self.meanwhile, None
            await meanwhile()
        return await super().drop_partition(order)

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
    """A worker with the workflow, and the means to run it."""

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


async def test_partitions_come_and_go_and_what_is_not_archived_stays(
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
    assert (len(report.made), len(report.dropped), report.left, report.errors) == (1, 8, [], [])
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
    there = await names(connection)
    report = await maintenance.run()
    assert report == MaintenanceReport()
    assert report.state == "clean"
    assert await names(connection) == there


async def test_the_report_can_be_searched_for(maintenance, connection, job_id):
    await store_batch(connection, [old_part(job_id, 0, b"text", at=ago(4))])
    handle = await maintenance.start()
    await handle.result()
    found = await handle.describe()
    assert found.typed_search_attributes.get(PARTITION_STATE) == "rescued"


async def test_a_log_taken_up_again_before_the_drop_is_rescued_too(maintenance, connection, job_id):
    await store_batch(connection, [old_part(job_id, 0, b"text", at=ago(4), final=True)])
    await finish(connection, job_id)

    async def take_up() -> None:
        await connection.execute("UPDATE logs SET archive_verified = false")

    maintenance.activities.meanwhile = take_up
    # The partitions before it are dropped without a look at this one.
    report = await maintenance.run()
    assert (report.rescued_logs, len(report.dropped), report.left) == (1, 8, [])
    assert await connection.fetchval("SELECT content FROM log_parts") == b"text"


async def test_what_was_moved_before_a_failure_is_counted_once(maintenance, connection, job_id):
    for job in (job_id, job_id + 1000):
        await store_batch(connection, [old_part(job, 0, b"text", at=ago(4))])
    maintenance.activities.rescue_fails_after = True
    report = await maintenance.run()
    assert (report.rescued_parts, report.rescued_logs) == (2, 2)


async def test_a_transaction_left_open_delays_maintenance_and_no_writer(
    maintenance, pool, connection, job_id
):
    async with pool.acquire() as drain:
        async with connection.transaction():
            await connection.fetch("SELECT FROM log_parts")
            handle = await maintenance.start(PartitionOptions(premake=7))
            running = asyncio.create_task(handle.result())
            for number in range(20):
                # Each is stored while the transaction is open and maintenance tries.
                await store_batch(drain, [part(job_id, number, b"%d," % number)])
                await tried_again(maintenance, number // 5)
            assert not running.done()
            assert len(await names(drain)) == 8 + 10
        report = await running
    assert (len(report.dropped), report.left, report.errors) == (8, [], [])
    assert await content(connection, job_id) == b"".join(b"%d," % n for n in range(20))


async def tried_again(maintenance, times) -> None:
    async def tried() -> bool:
        return maintenance.activities.tries > times

    await until(tried)


async def test_what_cannot_be_dropped_for_an_hour_is_left_to_the_next_run(
    maintenance, pool, connection
):
    async with pool.acquire() as other, other.transaction():
        await other.fetch("SELECT FROM log_parts")
        report = await maintenance.run(PartitionOptions(premake=7))
        assert (len(report.left), report.dropped, report.state) == (8, [], "left")
        assert "lock timeout" in report.errors[0]
    report = await maintenance.run()
    assert (len(report.dropped), report.state) == (8, "clean")


async def test_without_a_partition_for_the_present_the_rest_is_done(maintenance, connection):
    """Nobody ran maintenance for too long: parts of today lie in the default partition."""
    await connection.execute(f"DROP TABLE {await name_of(connection, ago(0))}")
    now = await connection.fetchval("SELECT now()")
    await store_batch(connection, [old_part(1, 0, b"text", at=now)])
    report = await maintenance.run()
    assert (len(report.made), len(report.dropped)) == (1, 8)
    assert report.state == "left"
    assert "parts in the way" in " ".join(report.errors)
    assert await content(connection, 1) == b"text"
