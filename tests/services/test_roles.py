"""The privileges of each process in the database: what it may do, and what is denied."""

import asyncio
from contextlib import AsyncExitStack
from datetime import timedelta

import asyncpg
import pytest

from db import (
    aggregation,
    backfill,
    holds,
    importing,
    logs,
    maintenance,
    migrate,
    notify,
    partitions,
    pending,
    recovery,
    retention,
    stats,
)
from db.connect import Role, check_schema, open_pool
from db.parts import store_batch
from db.recovery import Archived
from db.timeline import read_timeline
from logflume.domain import Origin, Policy
from logflume.errors import ComponentError, UnderHold
from logflume.markers import Step
from logflume_cli.devstack.home import PROCESSES
from tests.support import broker
from tests.support.partitions import ago, make_past, old_part
from tests.support.parts import part, write_whole
from tests.support.services import as_process, draining, serving
from tests.support.sse import reading
from tests.support.waiting import until, until_blocked

REFUSED = {
    "drain": [
        "SELECT content FROM log_parts",
        "SELECT body FROM large_dead_letters",
        "SELECT count(*) FROM log_parts",
        "SELECT content FROM logs",
        "SELECT * FROM log_timings",
        "DELETE FROM log_parts",
        "UPDATE log_parts SET content = ''",
        "DELETE FROM logs",
        "UPDATE logs SET content = ''",
        "INSERT INTO watched_logs VALUES (1, 'stream', now())",
    ],
    "worker": [
        "INSERT INTO logs (job_id) VALUES (1)",
        "INSERT INTO log_parts SELECT * FROM log_parts",
        "UPDATE log_parts SET content = ''",
        "DELETE FROM log_holds",
        "INSERT INTO log_holds (log_id, reason) VALUES (1, '')",
    ],
    "web": [
        "DELETE FROM logs",
        "DELETE FROM log_attempts",
        "UPDATE log_parts SET content = ''",
        "INSERT INTO log_timings VALUES (1, 0, '', '', '', 0, 0, 0)",
        "DELETE FROM log_holds",
        "SELECT * FROM imported_logs",
    ],
}
REFUSED_TO_ALL = [
    "TRUNCATE log_parts",
    "DROP TABLE log_parts_default",
    "DROP TABLE logs",
    "ALTER TABLE logs ADD COLUMN x integer",
    "CREATE TABLE mine (x integer)",
    "CREATE FUNCTION mine() RETURNS integer LANGUAGE sql AS 'SELECT 1'",
    "DELETE FROM maintenance",
    "UPDATE partman.part_config SET retention = '1 hour'",
    "INSERT INTO sqitch.changes SELECT * FROM sqitch.changes",
    "SELECT open_partitions()",
    "SELECT pg_read_file('/etc/passwd')",
    "COPY (SELECT 1) TO PROGRAM 'true'",
    "SET ROLE logflume",
    "ALTER ROLE logflume_drain SUPERUSER",
]
OWNERS = ["SELECT drop_partition('log_parts_default')", "SELECT analyze_parts()",
          "SELECT make_partition(now())", "SELECT configure_partitions('1 day', 1)"]  # fmt: skip
ROLES: dict[str, Role] = {
    "drain": "logflume_drain",
    "worker": "logflume_worker",
    "web": "logflume_web",
}


@pytest.fixture
async def pools(settings):
    """A pool per process, with the process's own user."""
    async with AsyncExitStack() as stack:
        yield {
            name: await stack.enter_async_context(
                await open_pool(as_process(settings, name).database, 2)
            )
            for name in PROCESSES
        }


@pytest.mark.parametrize("process", PROCESSES)
async def test_a_process_is_denied_what_it_does_not_need(pools, process):
    await check_schema(pools[process], ROLES[process])
    refused = REFUSED[process] + REFUSED_TO_ALL + ([] if process == "worker" else OWNERS)
    for statement in refused:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await pools[process].execute(statement)


async def test_a_process_with_another_processs_user_fails_at_startup(pools):
    for process, other in zip(PROCESSES, (*PROCESSES[1:], PROCESSES[0]), strict=True):
        with pytest.raises(ComponentError, match=f"GRANT logflume_{other} TO app_{process}"):
            await check_schema(pools[process], ROLES[other])


async def test_every_table_and_view_is_granted(pool):
    """A change that creates a table or view must grant it."""
    rows = await pool.fetch(
        """SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace
            AND relkind IN ('r', 'p', 'v') AND NOT relispartition
            AND NOT has_table_privilege('logflume_operator', oid, 'SELECT')"""
    )
    assert [row["relname"] for row in rows] == []


async def test_the_worker_can_drop_only_partitions_of_parts(pools, pool):
    for name in ("logs", "log_parts", "log_parts_default", "sqitch.changes"):
        with pytest.raises(asyncpg.NoDataFoundError):
            await pools["worker"].execute("SELECT drop_partition($1)", name)


async def test_the_worker_maintains_partitions(pool, pools, job_id):
    old = timedelta(days=2)
    async with pool.acquire() as owner:
        await make_past(owner, days=5)
        await owner.execute("SELECT open_partitions()")
        unarchived = job_id + 1_000_000
        for job in (job_id, unarchived):
            await store_batch(owner, [old_part(job, 0, b"old", at=ago(4), final=True)])
        await store_batch(owner, [old_part(unarchived, 1, b"strayed", at=ago(300))])
    async with pools["worker"].acquire() as worker:
        made = []
        assert await partitions.make_ahead(worker, "daily", 9, 0.5, made.append) == []
        assert len(made) == 2
        await archived(worker, job_id)
        for log_id, whole in await partitions.strays(worker):
            assert await partitions.rescue(worker, log_id, whole=whole)
        gone = await partitions.expired(worker, old)
        for name in gone:
            for log_id in await partitions.unfinished(worker, name):
                assert await partitions.rescue(worker, log_id)
            assert await partitions.drop(worker, name, old, 0.5)
        assert len(gone) >= 3
        assert await partitions.expired(worker, old) == []
        await partitions.analyze(worker, 0.5)
        read = await stats.read_stats(worker)
        assert (read.partitions_ahead, read.default_partition_parts) == (9, 0)
        assert await read_timeline(worker)
        await stats.count_overdue(worker, 0, 0)
    # The worker can read a partition by its name that it created.
    newest = (await partitions.partitions(pool)).ranges[-1]
    async with pools["worker"].acquire() as worker:
        assert await partitions.unfinished(worker, newest.name) == []


async def archived(connection, job_id: int) -> None:
    """Do everything the worker does to a row, from the aggregation to the purge."""
    made = await aggregation.aggregate(connection, job_id, force=True, restore=False)
    await logs.mark_archiving(connection, job_id, made.sha256)
    steps = [Step("a", "event", "fold", 0, 1, 2)]
    assert await logs.mark_verified(connection, job_id, made.sha256, steps)
    assert await logs.purge(connection, job_id, made.sha256)


async def test_the_drain_and_the_web_can_do_their_work(amqp_settings, channel, pools, job_id):
    """Parts, a second attempt, late parts, and parts of a closed attempt."""
    pool = pools["worker"]
    settings = as_process(amqp_settings, "web")

    async def publish(number, text, uuid="a", **fields):
        await broker.publish(channel, broker.message(job_id, number, text, uuid=uuid, **fields))

    async with draining(amqp_settings), serving(settings, pools["web"]) as web:

        async def says(text):
            async def is_so():
                return (await web.get(f"/logs/{job_id}/raw")).text == text

            await until(is_so)

        await publish(0, "one")
        await says("one")
        async with reading(web, job_id) as reader:
            assert await reader.parts(1) == [(0, b"one")]
            await publish(1, " two", final=True)
            assert await reader.parts(1) == [(1, b" two")]
        async with pool.acquire() as worker:
            await archived(worker, job_id)
        await publish("last", " three", uuid=None)
        await publish(0, "another", uuid="b")
        await says("another three")
        body = {"@type": "log_part", "content": "IQ==", "encoding": "base64", "final": False}
        assert (await web.put(f"/log-parts/{job_id}/1", json=body)).status_code == 204
        written = await web.put(f"/logs/{job_id}?removed_by=7", content=b"removed")
        assert written.json()["content"] == "removed"
        await publish(1, "stale", uuid="b")
        many = [{"job_id": job_id + 10**6, "content": "new"}]
        assert (await web.post("/logs/multi", json=many)).status_code == 204
        await until(lambda: has_stale_parts(pool))
        async with pools["web"].acquire() as connection:
            await notify.occupy(connection, job_id)
            await notify.vacate(connection, job_id)
            await notify.expire(connection)
        reads = ["", "/id", "/lifecycle", "/outline", "/search?q=x", "/timings", "/raw?attempt=b"]
        for path in [*(f"/logs/{job_id}{one}" for one in reads), f"/log-parts/{job_id}", "/logs"]:
            assert (await web.get(path)).status_code in {200, 404}, path


async def has_stale_parts(pool) -> bool:
    return await pool.fetchval("SELECT sum(stale_parts) > 0 FROM log_attempts")


async def test_the_worker_can_sweep_restore_and_delete(pool, pools, job_id):
    held, bare, gone = job_id + 10**6, job_id + 2 * 10**6, job_id + 3 * 10**6
    async with pool.acquire() as owner:
        for job in (job_id, held, gone):
            await store_batch(owner, [part(job, 0, b"text", final=True)])
        await owner.execute("INSERT INTO logs (job_id) VALUES ($1)", bare)
    async with pools["worker"].acquire() as worker:
        for job in (job_id, held, gone):
            await archived(worker, job)
        await aggregation.restore_content(worker, job_id, pieces(b"text"))
        await aggregation.aggregate(worker, job_id, force=True, restore=True)
        assert await pending.find_pending(worker, 0, -1, 0, 10)
        assert await pending.mark_empty(worker, bare)
        found = await backfill.find_in_ranges(worker, [(job_id, gone)], 0, 10)
        assert len(found.logs) == 4
        await backfill.find_of_kind(worker, backfill.Kind("not_archived", -1, 0), 0, 10)
        assert len(await backfill.check_progress(worker, [(job_id, 0.0, True)])) == 1
        assert await logs.pending_deletion(worker, job_id) is None
        await logs.mark_archive_deleted(worker, job_id, 0, found=False)
    async with pool.acquire() as owner:
        await holds.put_on(owner, held, "because")
        await owner.execute("UPDATE logs SET archived_at = archived_at - interval '40 days'")
    async with pools["worker"].acquire() as worker:
        old = Policy("old", 30, "row")
        page = await retention.find_expirable(worker, old, retention.PageToken(), 100)
        expired = await retention.expire(worker, old, page.log_ids)
        assert [one.job_id for one in expired] == [gone]
        async with retention.pending_deletions(worker, [gone], 1) as pending_jobs:
            assert pending_jobs == [gone]
        assert await retention.delete_rows(worker, [gone]) == 1


async def pieces(*content):
    for piece in content:
        yield piece


async def test_an_operators_user_can_run_the_commands(pool, settings, job_id, name):
    user = f"operator_{name}"
    await pool.execute(f"CREATE ROLE {user} LOGIN PASSWORD 'x' IN ROLE logflume_operator")
    try:
        url = settings.database.url.get_secret_value()
        _, place = url.rsplit("@", 1)
        async with asyncpg.create_pool(f"postgresql://{user}:x@{place}", min_size=1) as operator:
            await check_schema(operator)
            async with operator.acquire() as connection:
                await partitions.partitions(connection)
                await connection.fetchval(stats.OLDEST_PENDING_DELETION)
                await stats.count_overdue(connection, 0, 0)
                await maintenance.switch_on(connection, timedelta(minutes=5))
                await maintenance.switch_off(connection)
                await write_whole(connection, job_id, b"text")
                await holds.put_on(connection, job_id, "because")
                with pytest.raises(UnderHold):
                    await write_whole(connection, job_id, b"text")
                assert await holds.take_off(connection, job_id)
                await importing.reserve_ids(connection, 2**40)
                await retention.plan(connection, Policy("old", 30, "row"), 3)
                origin = Origin(1, 0, "a", None, None)
                steps = [Step("a", "event", "fold", 0, 1, 2)]
                lost = Archived(job_id + 1, 4, 64 * "0", 1, origin, ago(1), steps)
                assert await recovery.adopt(connection, lost)
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await connection.execute("DELETE FROM logs")
    finally:
        await pool.execute(f"DROP ROLE {user}")


async def test_the_owner_of_the_schema_need_not_be_a_superuser(servers, name):
    """As on a managed Postgres; only creating the extension requires a superuser."""
    owner = f"owner_{name}"
    admin = await asyncpg.connect(servers.database_url("postgres"))
    url = f"postgresql://{owner}:x@{servers.database_url(name).rsplit('@')[-1]}"
    try:
        await admin.execute(f"CREATE ROLE {owner} LOGIN PASSWORD 'x' SUPERUSER")
        await admin.execute(f"CREATE DATABASE {name} OWNER {owner}")
        await asyncio.to_thread(migrate.deploy, url)
        await admin.execute(f"ALTER ROLE {owner} NOSUPERUSER")
        await asyncio.to_thread(migrate.run, "revert", url, "-y", "--to", "retention")
        await asyncio.to_thread(migrate.deploy, url)
        own = servers.database_url(name, "worker")
        worker = await asyncpg.connect(own, server_settings={"timezone": "UTC"})
        made = []
        await partitions.make_ahead(worker, "daily", 8, 0.5, made.append)
        assert made
        last = (await partitions.partitions(worker)).ranges[-1]
        await worker.execute("SELECT drop_partition($1)", last.name)
        await partitions.analyze(worker, 0.5)
        await worker.close()
    finally:
        await admin.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        await admin.execute(f"DROP ROLE IF EXISTS {owner}")
        await admin.close()


async def test_two_databases_of_a_cluster_can_be_deployed_concurrently(servers, database_url, name):
    """Roles belong to the cluster: a deploy waits for those that another is creating."""
    text = (migrate.PROJECT / "deploy/roles.sql").read_text()
    make_roles = text[text.index("DO $$") : text.index("$$;") + 3].replace("logflume_", f"{name}_")
    here = await asyncpg.connect(database_url)
    there = await asyncpg.connect(servers.database_url("logflume"))
    await there.execute("BEGIN")
    await there.execute(make_roles)
    making = asyncio.create_task(here.execute(make_roles))
    try:
        await until_blocked(there, here.get_server_pid())
        await there.execute("COMMIT")
        await making
    finally:
        making.cancel()
        roles = ", ".join(f"{name}_{role}" for role in (*PROCESSES, "operator"))
        for one in (here, there):
            await one.execute(f"DROP OWNED BY {roles}")
        await there.execute(f"DROP ROLE {roles}")
        await asyncio.gather(here.close(), there.close())


async def test_a_revert_revokes_nothing_in_another_database(servers, database_url):
    await asyncio.to_thread(migrate.run, "revert", database_url, "-y", "--to", "retention")
    place = database_url.rsplit("/", 1)[1]
    here, there = [
        await asyncpg.connect(servers.database_url(database, "drain"))
        for database in (place, "logflume")
    ]
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await here.execute("SELECT id FROM logs")
    assert await there.fetch("SELECT id FROM logs") == []
    await asyncio.gather(here.close(), there.close())
