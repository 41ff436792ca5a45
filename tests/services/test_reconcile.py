"""Reconciling rows and objects of different times, on real Postgres and S3."""

import asyncio
import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from activities.logs import ArchiveActivities
from activities.types import ArchiveInput
from db import aggregation, holds, logs, reading
from logflume.archive.inventory import Inventory
from logflume.archive.store import key
from logflume.domain import LAST, MAX_JOB_ID, Content, Origin
from logflume.errors import ArchiveAhead, PartsGone
from logflume_cli.reconcile import reconciler
from logflume_cli.reconcile.compare import between
from logflume_cli.reconcile.reconciler import Options, Reconciler
from tests.support import other_stores, processes
from tests.support.activities import run_activity
from tests.support.parts import part, replace_whole, store_parts
from tests.support.processes import LOGFLUME
from tests.support.s3 import s3
from tests.support.s3_proxy import s3_proxy

# The tables that `dump` and `restore` copy.
TABLES = ("logs", "log_attempts", "log_parts", "log_holds", "log_timings")


class Workflows:
    """Records the calls to workflows, as job ids; negative: archive again."""

    def __init__(self):
        self.calls = []

    async def recheck(self, job_id):
        self.calls.append(job_id)

    async def archive_again(self, job_id):
        self.calls.append(-job_id)


class Bench:
    """A database that can be restored to an earlier state, and a bucket that cannot."""

    def __init__(self, pool, settings):
        self.pool = pool
        self.settings = settings
        self.archive = Inventory(settings.s3, 4)
        self.activities = ArchiveActivities(pool, self.archive)
        self.workflows = Workflows()

    async def store(self, *parts):
        await store_parts(self.pool, parts)

    async def aggregate(self, job_id, *, restore=False) -> Content:
        async with self.pool.acquire() as connection:
            content = await aggregation.aggregate(connection, job_id, force=True, restore=restore)
        if content.needs_archived:
            await run_activity(self.activities.restore, job_id)
            return await self.aggregate(job_id, restore=restore)
        return content

    async def finish(self, job_id, *parts, purge=True) -> bytes:
        """Run a log through its lifecycle; returns the archived bytes."""
        await self.store(*parts)
        content = await self.aggregate(job_id)
        order = ArchiveInput(job_id, content.sha256, content.bytes, content.parts)
        if not content.archived:
            await run_activity(self.activities.delete_archive, job_id)
            assert await run_activity(self.activities.archive, order)
            assert (await run_activity(self.activities.verify, order)).ok
            assert await run_activity(self.activities.check_archive, order)
        async with self.pool.acquire() as connection:
            assert not purge or await logs.purge(connection, job_id, content.sha256)
        return self.archived(job_id)

    async def dump(self) -> None:
        for name in TABLES:
            await self.pool.execute(f"DROP TABLE IF EXISTS dump_{name}")
            await self.pool.execute(f"CREATE TABLE dump_{name} AS TABLE {name}")

    async def restore(self) -> None:
        await self.pool.execute(f"TRUNCATE {', '.join(TABLES)}")
        for name in TABLES:
            await self.pool.execute(f"INSERT INTO {name} TABLE dump_{name}")

    async def reconcile(self, **options) -> tuple[list[str], dict[str, int]]:
        lines = []
        reconciler = Reconciler(
            self.pool,
            self.archive,
            self.workflows,
            Options(**options),
            lambda job_id, text: lines.append(f"job {job_id}: {text}"),
        )
        await reconciler.logs(None, lambda _: None)
        await reconciler.holds()
        return lines, dict(reconciler.counts)

    def archived(self, job_id) -> bytes:
        return self.object(job_id)["Body"].read()

    def object(self, job_id):
        return s3(self.settings).get_object(Bucket=self.settings.s3.bucket, Key=key(job_id))

    def put(self, job_id, content, **named):
        s3(self.settings).put_object(
            Bucket=self.settings.s3.bucket, Key=key(job_id), Body=content, **named
        )

    async def row(self, job_id):
        async with self.pool.acquire() as connection:
            return await reading.find(connection, job_id)


@pytest.fixture
def bench(pool, settings):
    return Bench(pool, settings)


def parts(job_id, *numbers, final=False, **fields):
    last = max(numbers) if final else None
    return [
        part(job_id, number, b"%d," % number, final=number == last, **fields) for number in numbers
    ]


async def test_newer_objects_are_neither_overwritten_nor_deleted_but_adopted(bench, numbers):
    fewer, none, more, gone, same = (next(numbers) for _ in range(5))
    await bench.store(*parts(fewer, 0, 1))
    await bench.finish(more, *parts(more, 0, final=True))
    await bench.finish(same, *parts(same, 0, final=True))
    await bench.finish(gone, *parts(gone, 0, final=True))
    await replace_whole(bench.pool, gone, b"")
    await bench.dump()
    for job_id in (fewer, none, more):
        await bench.finish(job_id, *parts(job_id, *range(2, 9), final=True))
    await bench.finish(gone, *parts(gone, 0, 1, final=True, attempt="b"))
    texts = {job_id: bench.archived(job_id) for job_id in (fewer, none, more, gone, same)}
    await bench.restore()

    # Workers were started before reconciling.
    content = await bench.aggregate(fewer)
    order = ArchiveInput(fewer, content.sha256, content.bytes, content.parts)
    with pytest.raises(
        ArchiveAhead, match=f"job {fewer}: .* from upload 1, .* `logflume reconcile`"
    ):
        await run_activity(bench.activities.archive, order)
    await run_activity(bench.activities.delete_archive, gone)
    assert {job_id: bench.archived(job_id) for job_id in texts} == texts

    lines, counts = await bench.reconcile()
    assert counts == {"repairable": 4, "same": 1}
    assert all("it can be adopted by the database" in line for line in lines), lines
    _, counts = await bench.reconcile(repair=True)
    assert counts == {"repaired": 4, "same": 1}
    assert sorted(bench.workflows.calls) == sorted([fewer, none, more, gone])
    assert await bench.reconcile(repair=True) == ([], {"same": 5})
    for job_id, text in texts.items():
        row = await bench.row(job_id)
        assert row.archive_verified and row.purged_at and not row.late_parts
        assert row.content_sha256 == bench.object(job_id)["Metadata"]["sha256"]
        content = await bench.aggregate(job_id)
        assert (content.archived, content.purged, content.bytes) == (True, True, len(text)), job_id
    assert (await bench.row(none)).missing_parts == 2


async def test_an_adopted_log_continues_as_if_its_row_had_not_been_lost(bench, numbers):
    """Later parts get their positions, whichever parts the row had before."""
    late, again, later, removed = (next(numbers) for _ in range(4))
    for job_id in (late, again, later, removed):
        await bench.store(*parts(job_id, 0, 1))
    await bench.dump()
    for job_id in (late, again):
        await bench.finish(job_id, *parts(job_id, 2, 5, LAST, final=True))
    await bench.finish(later, *parts(later, 2, final=True), *parts(later, 0, attempt="b"))
    await replace_whole(bench.pool, removed, b"Log removed")
    await bench.finish(removed)
    await bench.restore()
    # RabbitMQ still had these messages, before and after reconciling.
    await bench.store(*parts(late, 3), *parts(again, 0, 2, final=True))
    _, counts = await bench.reconcile(repair=True)
    assert counts == {"repaired": 4}
    # All parts of the other one are in its object.
    with_late_parts = [job_id for job_id in (late, again) if (await bench.row(job_id)).late_parts]
    assert with_late_parts == [late]
    await bench.store(*parts(late, 4, LAST), *parts(removed, 2, 3, final=True))
    await bench.store(*parts(later, 3), *parts(later, 1, attempt="b"))

    assert await bench.finish(late) == b"0,1,2,3,4,5,2147483647,"
    assert Origin.read(bench.object(late)["Metadata"]["origin"]).upload == 2
    assert await bench.finish(later) == b"0,1,"
    assert await bench.finish(again) == b"0,1,2,5,2147483647,"
    assert await bench.finish(removed) == b"Log removed"
    for job_id in (again, removed):
        assert Origin.read(bench.object(job_id)["Metadata"]["origin"]).upload == 1
    left = await bench.pool.fetchval(
        "SELECT count(*) FROM log_parts p JOIN logs l ON l.id = p.log_id WHERE job_id = $1", removed
    )
    assert left == 0
    assert await bench.reconcile() == ([], {"same": 4})


async def test_a_later_attempt_from_the_queue_replaces_the_log(bench, job_id):
    await bench.dump()
    await bench.finish(job_id, *parts(job_id, 0, 1, LAST, final=True))
    await bench.restore()
    await bench.store(*parts(job_id, 0, attempt="b"))
    await bench.reconcile(repair=True)
    row = await bench.row(job_id)
    assert (row.archive_verified, row.purged_at) == (False, None)
    assert await bench.finish(job_id) == b"0,2147483647,"


async def test_an_object_without_an_origin_is_not_replaced(bench, job_id):
    """It is of an earlier release, or of a log with too many gaps."""
    bench.put(job_id, b"text", Metadata={"sha256": hashlib.sha256(b"text").hexdigest()})
    bench.put(job_id + 1, b"of others")
    lines, counts = await bench.reconcile(repair=True)
    assert (len(lines), counts) == (1, {"repaired": 1, "foreign": 1})
    content = await bench.aggregate(job_id, restore=True)  # requested again: nothing to do
    assert (content.archived, content.purged, content.bytes) == (True, True, 4)
    await bench.store(*parts(job_id, 0, attempt="b"))
    with pytest.raises(PartsGone):
        await bench.aggregate(job_id)
    assert (await bench.row(job_id)).archive_verified
    assert await bench.reconcile() == ([], {"same": 1, "foreign": 1})


async def test_objects_that_the_archive_lost_are_restored_or_reported(bench, numbers):
    unpurged, held, lost, other, stale, damaged = (next(numbers) for _ in range(6))
    for job_id in (unpurged, held, lost, other, damaged):
        await bench.finish(job_id, *parts(job_id, 0, final=True), purge=job_id != unpurged)
    async with bench.pool.acquire() as connection:
        await holds.put_on(connection, held, "case 7")
    await bench.archive.copy_to_hold(held)
    parts_of = "log_id = (SELECT id FROM logs WHERE job_id = $1)"
    for job_id in (held, lost):
        await bench.pool.execute(f"DELETE FROM log_parts WHERE {parts_of}", job_id)
    for job_id in (unpurged, held, lost):
        await bench.archive.delete(job_id)
    bench.put(other, b"of others")
    bench.put(damaged, b"1,", Metadata=bench.object(damaged)["Metadata"])
    await bench.finish(stale, *parts(stale, 0, final=True))
    text, metadata = bench.archived(stale), bench.object(stale)["Metadata"]
    await replace_whole(bench.pool, stale, b"")
    await run_activity(bench.activities.delete_archive, stale)
    bench.put(stale, text, Metadata=metadata)  # like a bucket that was restored

    lines, counts = await bench.reconcile()
    assert counts == {"repairable": 4, "left": 1, "same": 1}
    assert [line for line in lines if "neither parts nor" in line] == [
        f"job {lost}: object missing, and neither parts nor a hold copy exist"
    ]
    _, counts = await bench.reconcile(repair=True, read=True)
    assert counts == {"repaired": 5, "left": 1}
    assert bench.archived(held) == b"0,"
    assert {-unpurged, -other, -damaged, held, stale} <= set(bench.workflows.calls)
    await run_activity(bench.activities.delete_archive, stale)
    with pytest.raises(s3(bench.settings).exceptions.NoSuchKey):
        bench.archived(stale)


async def test_copied_objects_are_labelled_again_by_their_bytes(bench, numbers):
    copied, renamed, other = (next(numbers) for _ in range(3))
    for job_id in (copied, renamed, other):
        await bench.finish(job_id, *parts(job_id, 0, 1, final=True))
    metadata = bench.object(copied)["Metadata"]
    titled = {name.title(): value for name, value in bench.object(renamed)["Metadata"].items()}
    bench.put(copied, b"0,1,")
    bench.put(renamed, b"0,1,", Metadata=titled)
    bench.put(other, b"0;1;")
    lines, counts = await bench.reconcile(read=True)
    assert counts == {"repairable": 2, "same": 1}
    lines.sort()  # logs of a page are compared concurrently
    assert lines[0] == (
        f"job {copied}: object has the log's bytes, but not its metadata; it can be labelled"
    )
    assert f"job {other}: object has different content" in lines[1]
    _, counts = await bench.reconcile(read=True, repair=True)
    assert counts == {"repaired": 2, "same": 1}
    assert bench.object(copied)["Metadata"] == metadata
    assert bench.object(copied)["ContentType"] == "text/plain"
    assert bench.archived(copied) == b"0,1,"


async def test_an_object_that_changes_meanwhile_is_not_labelled(bench, job_id):
    await bench.finish(job_id, *parts(job_id, 0, final=True))
    info = await bench.archive.head(job_id)
    bench.put(job_id, b"of others")
    assert not await bench.archive.label(job_id, info, "0" * 64, 1, Origin(1))
    assert bench.archived(job_id) == b"of others"


async def test_a_cold_object_is_left_and_does_not_stop_the_rest(bench, numbers, settings):
    jobs = [next(numbers) for _ in range(2)]
    for job_id in jobs:
        await bench.finish(job_id, *parts(job_id, 0, final=True))
    async with s3_proxy(settings.s3.endpoint) as proxy:
        proxy.every = other_stores.cold
        there = settings.s3.model_copy(update={"endpoint": proxy.url})
        bench.archive = Inventory(there, 4)
        lines, counts = await bench.reconcile(read=True)
    assert counts == {"left": 2}
    assert all("is in a cold storage class; restore it" in line for line in lines)


async def test_lost_holds_are_restored_from_their_copies(bench, numbers):
    forgotten, ended = next(numbers), next(numbers)
    for job_id in (forgotten, ended):
        await bench.finish(job_id, *parts(job_id, 0, final=True))
    async with bench.pool.acquire() as connection:
        await holds.put_on(connection, ended, "case 8")
    await bench.archive.copy_to_hold(forgotten)
    lines, counts = await bench.reconcile(repair=True)
    assert counts == {"same": 2, "repaired": 1, "left": 1}
    assert f"job {ended}: held, but the bucket has no hold copy" in lines[1]
    async with bench.pool.acquire() as connection:
        hold = await holds.read(connection, forgotten)
    assert hold and hold.reason == reconciler.HOLD_REASON


async def test_pages_of_rows_and_objects_are_merged_in_key_order(bench, monkeypatch, tmp_path):
    monkeypatch.setattr("logflume.archive.inventory.PAGE_KEYS", 3)
    monkeypatch.setattr("logflume_cli.reconcile.reconciler.PAGE_ROWS", 2)
    jobs = [0, 1, 2, 9, 10, 11, 19, 100, 101, 2000, 10_000, MAX_JOB_ID]
    for job_id in jobs:
        await bench.store(*parts(job_id, 0, final=True))
        if job_id % 2:
            await bench.finish(job_id)
    assert await bench.reconcile() == ([], {"same": len(jobs)})
    resumed = Reconciler(bench.pool, bench.archive, bench.workflows, Options(), print)
    progress = []
    await resumed.logs(101, progress.append)
    # 101, 11, 19, 2, 2000, 9, 92…
    assert (resumed.counts["same"], progress) == (7, [19, MAX_JOB_ID])
    env = processes.environment(bench.settings, tmp_path / "stack")
    done = await asyncio.to_thread(processes.run, LOGFLUME, "reconcile", "--json", env=env)
    assert json.loads(done.stdout) == {"counts": {"same": len(jobs)}, "differences": []}


ids = st.one_of(st.integers(0, 300), st.integers(0, MAX_JOB_ID))


@given(st.sets(ids), ids, st.one_of(st.none(), ids), st.booleans())
def test_ranges_contain_the_job_ids_between_two_keys(job_ids, after, last, inclusive):
    ranges = list(between(str(after), None if last is None else str(last), inclusive=inclusive))
    for job_id in job_ids | {after} | ({last} if last is not None else set()):
        is_after = key(job_id) > key(after) or (inclusive and job_id == after)
        expected = is_after and (last is None or key(job_id) <= key(last))
        assert sum(low <= job_id <= high for low, high in ranges) == expected
