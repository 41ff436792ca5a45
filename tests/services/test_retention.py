"""Retention and legal holds on real Postgres and S3."""

import asyncio
import hashlib
import json
from dataclasses import replace
from datetime import datetime

import asyncpg
import pytest
from click.testing import CliRunner

from activities.logs import ArchiveActivities
from activities.types import ArchiveInput, DeleteInput
from db import aggregation, holds, logs, maintenance, retention
from db.parts import store_batch
from db.retention import PAGE, criteria
from logflume.archive.store import Archive, hold_key, key
from logflume.domain import LAST
from logflume.errors import PartsGone, UnderHold
from logflume_cli.main import root
from tests.support.activities import run_activity
from tests.support.parts import part
from tests.support.retention import OLD, ROWS, Keeper
from tests.support.s3 import s3
from tests.support.services import serving
from tests.support.waiting import until_blocked


@pytest.fixture
def keeper(pool, settings, monkeypatch):
    return Keeper(pool, settings)


async def test_the_text_of_old_logs_is_deleted(keeper, pool, settings, numbers):
    old, young, open_log = (next(numbers) for _ in range(3))
    await keeper.finish(old)
    await keeper.finish(young, days=0)
    await keeper.store(part(open_log, 0, b"running"))
    await keeper.age(20)
    assert await keeper.delete() == ([old], 0)
    assert keeper.keys() == [key(young)]
    async with serving(settings, pool) as web:
        log = await web.get(f"/logs/{old}")
        assert (log.status_code, log.json()["content"]) == (200, None)
        for call in ("raw", "outline", "search?q=x", "stream", "timings"):
            answer = await web.get(f"/logs/{old}/{call}")
            assert answer.status_code == 410, call
            assert f"job {old} was deleted on 20" in answer.json()["error"]
        assert (await web.get(f"/log-parts/{old}")).status_code == 410
        lifecycle = (await web.get(f"/logs/{old}/lifecycle")).json()
        assert lifecycle["phase"] == "done" and lifecycle["expired_at"]
        assert (await web.get(f"/logs/{young}/raw")).content == b"one log"
    row = await pool.fetchrow("SELECT * FROM logs WHERE job_id = $1", old)
    assert (row["empty"], row["archive_outdated"]) == (True, False)
    assert row["archive_settles_at"]  # what is archived next is checked: the deletion may be late
    assert await keeper.delete() == ([], 0)


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (OLD, ["large", "removed", "small"]),
        (replace(OLD, larger_than_bytes=500), ["large"]),
        (replace(OLD, state="removed"), ["removed"]),
        (replace(ROWS, state="empty"), ["cleared"]),
        (replace(OLD, older_than_days=41), []),
    ],
)
async def test_a_policy_matches_by_age_size_and_state(keeper, numbers, policy, expected):
    jobs = {name: next(numbers) for name in ("large", "removed", "small", "cleared", "running")}
    await keeper.finish(jobs["large"], b"x" * 501, days=0)
    await keeper.finish(jobs["small"], b"x" * 500, days=0)
    await keeper.finish(jobs["removed"], days=0)
    await keeper.store(part(jobs["running"], 0, b"x" * 1000))
    async with keeper.pool.acquire() as connection:
        await logs.replace_contents(
            connection, [logs.WholeContent(jobs["cleared"], b""), logs.WholeContent(1, b"", 7)]
        )
        await logs.mark_archive_deleted(connection, jobs["cleared"], 0, found=False)
        await connection.execute("UPDATE logs SET empty = true WHERE job_id = $1", jobs["cleared"])
        await connection.execute(
            "UPDATE logs SET removed_at = now() WHERE job_id = $1", jobs["removed"]
        )
        await keeper.age(40)
        plan = await retention.plan(connection, policy, 2)
    assert plan.logs == len(expected)
    assert set(plan.sample) <= {jobs[name] for name in expected}
    assert sorted((await keeper.delete(policy))[0]) == sorted(jobs[name] for name in expected)


async def test_a_row_is_deleted_with_everything_that_references_it(keeper, pool, settings, job_id):
    await keeper.finish(job_id)
    assert await keeper.delete(ROWS) == ([job_id], 1)
    for table in ("logs", "log_attempts", "log_parts", "log_timings"):
        assert await pool.fetchval(f"SELECT count(*) FROM {table}") == 0, table
    async with serving(settings, pool) as web:
        assert (await web.get(f"/logs/{job_id}")).status_code == 404
    await keeper.finish(job_id, b"again", days=0)
    assert keeper.keys() == [key(job_id)]


async def test_a_held_log_is_not_deleted(keeper, pool, settings, job_id):
    await keeper.finish(job_id, b"evidence")
    async with pool.acquire() as connection, serving(settings, pool) as web:
        log = await holds.put_on(connection, job_id, "case 7")
        assert log.content_sha256 and log.content_bytes
        assert await keeper.archive.copy_to_hold(job_id) == hold_key(job_id, log.content_sha256)
        assert (await keeper.expire()).held == 1
        for policy in (OLD, ROWS, replace(OLD, state="removed")):
            assert await keeper.delete(policy) == ([], 0)
        # Even if it was found before it was held.
        assert await retention.expire(connection, OLD, [log.id]) == []
        for answer in (
            await web.put(f"/logs/{job_id}"),
            await web.put(f"/logs/{job_id}?removed_by=7", content=b"removed"),
            await web.post("/logs/multi", json=[{"job_id": 1}, {"job_id": job_id}]),
        ):
            assert answer.status_code == 423
            assert f"job {job_id}" in answer.json()["error"]
            assert "case 7" not in answer.json()["error"]
        assert (await web.get("/logs/1")).status_code == 404
        assert (await web.get(f"/logs/{job_id}/raw")).content == b"evidence"
        # The store's lifecycle rules ignore holds: the copy survives them.
        await keeper.archive.delete(job_id)
        assert (await web.get(f"/logs/{job_id}/raw")).content == b"evidence"
        assert await holds.take_off(connection, job_id)
        await keeper.archive.delete_hold_copies(job_id)
        answer = await web.get(f"/logs/{job_id}/raw")
        assert (answer.status_code, answer.json()["error"]) == (
            410,
            f"the archive has no object {key(job_id)}",
        )
        assert (await keeper.delete())[0] == [job_id]


async def test_a_hold_that_ends_while_its_copy_is_written_leaves_no_copy(
    keeper, pool, settings, monkeypatch, job_id
):
    class EndedJustNow(Archive):
        async def copy_to_hold(self, job_id):
            async with pool.acquire() as connection:
                await holds.take_off(connection, job_id)
            await self.delete_hold_copies(job_id)
            return await super().copy_to_hold(job_id)

    await keeper.finish(job_id)
    async with pool.acquire() as connection:
        log = await holds.put_on(connection, job_id, "case 7")
        assert log.content_sha256 and log.content_bytes
    order = ArchiveInput(job_id, log.content_sha256, log.content_bytes, 1)
    assert (await run_activity(ArchiveActivities(pool, keeper.archive).verify, order)).ok
    assert keeper.keys() == [hold_key(job_id, log.content_sha256), key(job_id)]
    assert (
        await run_activity(ArchiveActivities(pool, EndedJustNow(settings.s3, 2)).verify, order)
    ).ok
    assert keeper.keys() == [key(job_id)]


async def test_a_hold_and_a_deletion_concurrently(keeper, pool, job_id):
    """In either order, the text of a held log is not deleted after the hold."""
    await keeper.finish(job_id)
    async with pool.acquire() as keeping, pool.acquire() as connection:
        async with keeping.transaction():
            await holds.put_on(keeping, job_id, "case 7")
            [log_id] = [row["id"] for row in await keeping.fetch("SELECT id FROM logs")]
            expiring = asyncio.create_task(retention.expire(connection, OLD, [log_id]))
            await until_blocked(pool, connection.get_server_pid())
        assert await expiring == []
        await store_batch(connection, [part(job_id, 1, b"late")])
        with pytest.raises(UnderHold):
            await logs.replace_contents(connection, [logs.WholeContent(job_id, b"")])


@pytest.mark.parametrize("number", [0, LAST])
async def test_an_expired_log_accepts_a_new_attempt(keeper, pool, settings, job_id, number):
    await keeper.finish(job_id, b"old", attempt="")
    await keeper.expire()  # and crashed before deleting the archived object
    await keeper.store(part(job_id, number, b"new", attempt="", final=True))
    async with serving(settings, pool) as web:
        assert (await web.get(f"/logs/{job_id}/raw")).content == b"new"
    await run_activity(keeper.activities.delete_expired, DeleteInput([job_id], rows=True))
    assert keeper.keys() == []
    assert await pool.fetchval("SELECT NOT empty FROM logs")


async def test_stale_parts_leave_an_expired_log_expired(keeper, job_id):
    await keeper.finish(job_id, attempt="a")
    await keeper.delete()
    await keeper.store(part(job_id, LAST, b"stale", attempt="a"))
    row = await keeper.pool.fetchrow("SELECT expired_at, empty FROM logs")
    assert row["expired_at"] and row["empty"]


async def test_a_log_that_expires_while_it_is_restored_is_not_restored(
    keeper, pool, monkeypatch, job_id
):
    restore = ArchiveActivities(pool, keeper.archive).restore
    await keeper.finish(job_id)
    await keeper.archive.delete(job_id)
    with pytest.raises(PartsGone, match="the archive has no object"):
        await run_activity(restore, job_id)
    await keeper.delete()
    await run_activity(restore, job_id)


async def test_no_upload_starts_while_the_old_object_is_deleted(keeper, pool, job_id):
    await keeper.finish(job_id, b"old")
    await keeper.expire()
    await keeper.store(part(job_id, 0, b"new", attempt="b", final=True))
    async with pool.acquire() as connection, pool.acquire() as worker:
        made = await aggregation.aggregate(worker, job_id, force=True, restore=False)
        async with retention.pending_deletions(connection, [job_id], 1) as pending:
            assert pending == [job_id]
            # The log's own workflow deletes it too, and continues.
            await logs.mark_archive_deleted(worker, job_id, 0, found=False)
            archiving = asyncio.create_task(logs.mark_archiving(worker, job_id, made.sha256))
            await until_blocked(pool, worker.get_server_pid())
        assert await archiving
        async with retention.pending_deletions(connection, [job_id], 1) as pending:
            assert pending == []


async def test_rows_are_not_deleted_while_parts_are_written(keeper, pool, job_id):
    await keeper.finish(job_id)
    await keeper.delete()
    async with pool.acquire() as drain, pool.acquire() as connection:
        async with drain.transaction():
            await maintenance.check_writing(drain)  # as at the start of a batch
            with pytest.raises(asyncpg.LockNotAvailableError):
                await retention.delete_rows(connection, [job_id])
            await store_batch(drain, [part(job_id, 0, b"new", attempt="b")])
        assert await retention.delete_rows(connection, [job_id]) == 0
    assert await pool.fetchval("SELECT content FROM log_parts") == b"new"


async def test_the_cost_of_retention_depends_only_on_old_logs(keeper, pool, job_id):
    await pool.execute(
        "INSERT INTO logs (job_id, archived_at, archive_verified, purged_at)"
        " SELECT j, t, true, t FROM generate_series($1::bigint, $1 + 20000) j,"
        " (SELECT now()) p (t)",
        job_id * 100_000,
    )
    await keeper.finish(job_id, days=40)
    await pool.execute("VACUUM ANALYZE logs")
    epoch = retention.PageToken()
    plan = await pool.fetch("EXPLAIN " + PAGE, *criteria(OLD), *epoch, 500)
    text = "\n".join(row[0] for row in plan)
    assert "logs_archived" in text and "Seq Scan on logs" not in text


@pytest.fixture
def run(settings, monkeypatch):
    """Run a command of `logflume`; returns its output, or its error."""
    monkeypatch.setenv("LOGFLUME_DATABASE__URL", settings.database.url.get_secret_value())
    monkeypatch.setenv("LOGFLUME_S3__BUCKET", settings.s3.bucket)

    async def run(*arguments):
        done = await asyncio.to_thread(CliRunner().invoke, root, arguments)
        return str(done.exception or done.output)

    return run


async def test_the_commands(keeper, settings, run, monkeypatch, job_id):
    await keeper.finish(job_id, b"one log")
    sha256 = hashlib.sha256(b"one log").hexdigest()
    policies = [
        {"name": "old", "older_than_days": 30, "delete": "archive", "larger_than_bytes": 3},
        {"name": "gone", "older_than_days": 10, "delete": "row", "state": "empty"},
    ]
    assert "LOGFLUME_RETENTION__POLICIES is not set" in await run("retention", "plan")
    monkeypatch.setenv("LOGFLUME_RETENTION__POLICIES", json.dumps(policies))
    output = await run("retention", "plan")
    assert (
        "old: 1 logs, 7 bytes" in output and f"jobs {job_id}" in output and "gone: 0 logs" in output
    )
    held = await run("hold", "on", str(job_id), "--reason", "case 7")
    assert held == f"held; copied to {hold_key(job_id, sha256)}\n"
    assert keeper.keys() == [hold_key(job_id, sha256), key(job_id)]
    assert "not deleted: 1 more under legal hold" in await run("retention", "plan")
    assert json.loads(await run("retention", "plan", "--json"))["old"]["held"] == 1
    assert "case 7" in await run("hold", "status", str(job_id))
    held = json.loads(await run("hold", "status", str(job_id), "--json"))["held"]
    assert held["reason"] == "case 7" and datetime.fromisoformat(held["held_at"])
    assert await run("hold", "off", str(job_id)) == "no longer held\n"
    assert await run("hold", "status", str(job_id)) == "not held\n"
    assert keeper.keys() == [key(job_id)]
    assert "no log for job 1" in await run("hold", "on", "1", "--reason", "x")
    rules, _, note = (await run("retention", "rules")).rpartition("}\n")
    assert note.startswith("gone: ")
    configuration = json.loads(rules + "}")
    assert [rule["ID"] for rule in configuration["Rules"]] == ["logflume-old", "logflume-uploads"]
    assert configuration["Rules"][0]["Filter"]["And"]["Prefix"] == "jobs/"
    s3(settings).put_bucket_lifecycle_configuration(
        Bucket=settings.s3.bucket, LifecycleConfiguration=configuration
    )
