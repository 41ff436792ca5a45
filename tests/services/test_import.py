"""Importing a travis-logs database: what each kind of row becomes, on every run."""

import hashlib
from datetime import UTC, datetime, timedelta

import pytest
from pydantic import SecretStr

from db import aggregation, holds, logs, reading
from db.partitions import partitions
from db.pending import find_pending
from db.stats import read_stats
from logflume.archive.store import key
from logflume.domain import LAST, Log
from logflume.errors import ComponentError, PartsGone
from logflume.settings.servers import DatabaseSettings
from logflume_cli import import_
from logflume_cli.import_ import import_logs
from tests.support.parts import content, part, replace_whole, store_parts
from tests.support.s3 import s3
from tests.support.services import serving
from tests.support.travis_logs import THEN, travis_logs


@pytest.fixture
async def travis(servers, name):
    async with travis_logs(servers, f"{name}_travis") as made:
        yield made


class Here:
    """Our database after the import."""

    def __init__(self, settings, pool, travis, capsys):
        self.settings, self.pool, self.travis, self.capsys = settings, pool, travis, capsys

    async def take_over(self, *, verify: bool = False) -> dict[str, int]:
        theirs = DatabaseSettings(url=SecretStr(self.travis.url))
        counts = await import_logs(self.settings.database, theirs, verify=verify)
        self.notes = self.capsys.readouterr().out.splitlines()
        return dict(counts)

    async def log(self, job_id: int) -> Log:
        async with self.pool.acquire() as connection:
            return await reading.find(connection, job_id)

    async def content(self, job_id: int) -> bytes:
        async with self.pool.acquire() as connection:
            return await content(connection, job_id)

    async def store(self, *parts) -> None:
        await store_parts(self.pool, parts)

    async def finish(self, job_id: int) -> str:
        """Aggregate and archive a log, as its workflow does."""
        async with self.pool.acquire() as connection:
            made = await aggregation.aggregate(connection, job_id, force=True, restore=False)
            await logs.mark_archiving(connection, job_id, made.sha256)
            assert await logs.mark_verified(connection, job_id, made.sha256)
        return made.sha256

    async def pending(self) -> set[int]:
        async with self.pool.acquire() as connection:
            return {one.job_id for one in await find_pending(connection, 0, 0, 0, 100)}


@pytest.fixture
def here(settings, pool, travis, capsys):
    return Here(settings, pool, travis, capsys)


async def test_each_kind_of_log_is_imported_once(here, travis):
    ids = [
        await travis.archived(11),
        await travis.log(12, "größer\n"),
        await travis.log(13),
        await travis.log(14),
        await travis.log(15, ""),
        await travis.log(16, "removed by a", removed_at=THEN, removed_by=7),
    ]
    for number, text in ((1, "b"), (0, "a"), (None, "y"), (LAST, "z")):
        await travis.part(ids[2], number, text, final=number == 1)
    counts = {
        "added (archived)": 1,
        "added (content)": 2,
        "added (parts)": 1,
        "added (empty)": 2,
    }
    assert await here.take_over() == counts
    assert here.notes == []
    first = [await here.log(job_id) for job_id in range(11, 17)]
    assert [log.id for log in first] == ids
    assert {log.created_at for log in first} == {THEN}
    assert [await here.content(job_id) for job_id in (12, 13, 14, 16)] == [
        "größer\n".encode(),
        b"abyz",
        b"",
        b"removed by a",
    ]
    assert (first[5].removed_at, first[5].removed_by) == (THEN, 7)
    assert (first[0].aggregated_at, first[0].archived_at) == (THEN, THEN)
    assert (first[0].phase, first[0].archive_verified) == ("done", True)
    assert await here.pending() == {12, 13, 16}
    rows = await here.pool.fetchval("SELECT count(*) FROM log_parts")

    again = {name.replace("added", "same"): count for name, count in counts.items()}
    assert await here.take_over() == again
    assert await here.take_over(verify=True) == again
    assert [await here.log(job_id) for job_id in range(11, 17)] == first
    assert await here.pool.fetchval("SELECT count(*) FROM log_parts") == rows

    await travis.log(17, "new")
    assert await here.take_over() == again | {"added (content)": 1}


async def test_an_interrupted_run_resumes(here, travis, monkeypatch):
    for job_id in range(20, 30):
        await travis.log(job_id, f"text of {job_id}")
    monkeypatch.setattr(import_, "PAGE_ROWS", 3)
    await here.pool.execute("ALTER TABLE log_parts ADD CHECK (content <> 'text of 27')")
    with pytest.raises(ComponentError, match="run it again"):
        await here.take_over()
    assert await here.pool.fetchval("SELECT count(*) FROM logs") == 7
    await here.pool.execute("ALTER TABLE log_parts DROP CONSTRAINT log_parts_content_check")
    assert await here.take_over() == {"same (content)": 7, "added (content)": 3}
    assert await here.take_over(verify=True) == {"same (content)": 10}


async def test_rows_of_one_job_become_one_log_with_all_their_text(here, travis, monkeypatch):
    monkeypatch.setattr(import_, "PAGE_ROWS", 1)
    first = await travis.log(30)
    await travis.part(first, 0, "a")
    await travis.log(31, "one")
    second = await travis.log(30)
    await travis.part(second, 1, "b", final=True)
    for text in ("two", "one"):
        await travis.log(31, text)
    archived = await travis.archived(32)
    left = await travis.log(32, "not in the archive")
    assert await here.take_over() == {
        "added (parts)": 1,
        "added (content)": 1,
        "added (archived)": 1,
    }
    assert await here.content(30) == b"ab"
    assert await here.content(31) == b"onetwo"
    assert [(await here.log(job)).id for job in (30, 32)] == [first, archived]
    assert f"job 30: rows {first}, {second} of travis-logs are one log here" in here.notes
    assert any(f"18 bytes and 0 parts of row {left}" in note for note in here.notes)


async def test_differences_are_reported(here, travis, job_id):
    await here.store(part(job_id, 0, b"ours"))
    taken = (await here.log(job_id)).id
    await travis.log(40, "text", id=taken)
    row = await travis.log(None, id=50)
    await travis.log(-41, "x", id=51)
    await travis.log(42, id=52, aggregated_at=THEN)
    doubled = await travis.log(43, id=53)
    for text in ("first", "second"):
        await travis.part(doubled, 0, text)
    assert await here.take_over() == {
        "added (content)": 1,
        "left (content)": 1,
        "added (empty)": 1,
        "added (parts)": 1,
    }
    assert (await here.log(40)).id > 2**31
    assert await here.content(40) == b"text"
    assert await here.content(43) == b"second"
    notes = "\n".join(here.notes)
    for words in (
        f"job 40: another job has its id {taken} here",
        f"row {row}: skipped, it has no job",
        "job -41: row 51: its job id is negative",
        "job 42: travis-logs has its text neither",
        "job 43: its text differs: 6 bytes",
    ):
        assert words in notes


async def test_parts_retain_their_times_where_a_partition_exists(here, travis):
    log_id = await travis.log(45)
    now = datetime.now(UTC)
    for number, at in enumerate((datetime(2000, 1, 1, tzinfo=UTC), now, now + timedelta(days=99))):
        await travis.part(log_id, number, "x", created_at=at)
    await here.take_over()
    async with here.pool.acquire() as connection:
        found = await partitions(connection)
        assert not await connection.fetchval(f"SELECT count(*) FROM {found.default}")
    times = await here.pool.fetch("SELECT created_at FROM log_parts ORDER BY number")
    assert [row["created_at"] for row in times[:2]] == [found.ranges[0].begin, now]
    assert times[2]["created_at"] <= found.now


async def test_changes_in_travis_logs_are_imported_again(here, travis):
    log_id = await travis.log(50)
    await travis.part(log_id, 0, "be")
    await travis.log(51, "secret")
    await travis.archived(52)
    await travis.log(53, "same")
    parts_only = await travis.log(54)
    await travis.part(parts_only, 0, "half")
    await here.take_over()
    await here.finish(51)
    await travis.write(50, "begun and ended")
    await travis.write(51, "Log removed", removed_at=THEN, removed_by=3)
    await travis.write(52, None)
    await travis.archive(53)
    await travis.archive(54)
    assert await here.take_over() == {
        "changed (content)": 2,
        "changed (empty)": 1,
        "same (archived)": 1,
        "changed (archived)": 1,
    }
    assert await here.content(50) == b"begun and ended"
    assert await here.content(51) == b"Log removed"
    assert (await here.log(51)).removed_by == 3
    assert await here.content(53) == b"same"
    assert (await here.log(54)).phase == "done"
    outdated = await here.pool.fetch("SELECT job_id FROM logs WHERE archive_outdated ORDER BY 1")
    # Objects archived here must be deleted; those of travis-logs must stay.
    assert [row["job_id"] for row in outdated] == [50, 51, 52]


async def test_received_text_stays_unless_its_beginning_is_missing(here, travis):
    for job_id in (60, 61, 62):
        await here.store(part(job_id, 5, b"the end", final=True))
    await travis.log(60, "the beginning and the end")
    await travis.log(61, "the end")
    await travis.log(62, "something else")
    await here.store(part(63, 0, b"a secret"))
    await travis.log(63, "Log removed", removed_at=THEN, removed_by=3)
    await here.store(part(64, 0, b"a secret"))
    await travis.archived(64, removed_at=THEN)
    running = await travis.log(65)
    await travis.part(running, 0, "a")
    await here.store(part(65, 0, b"a"), part(65, 1, b"b"))
    assert await here.take_over() == {
        "changed (content)": 2,
        "ours (content)": 2,
        "ours (archived)": 1,
        "ours (parts)": 1,
    }
    assert await here.content(60) == b"the beginning and the end"
    assert await here.content(62) == b"the end"
    assert await here.content(63) == b"Log removed"
    assert await here.content(65) == b"ab"
    notes = [note for note in here.notes if "another job has its id" not in note]
    assert len(notes) == 2
    assert "job 62" in notes[0] and "job 64: its text was removed" in notes[1]
    assert await here.take_over(verify=True) == {
        "same (content)": 3,
        "different (content)": 1,
        "different (archived)": 1,
        "different (parts)": 1,
    }


async def test_content_cleared_here_is_not_imported_again(here, travis):
    await replace_whole(here.pool, 66, b"")
    await travis.log(66, "cleared since")
    await travis.log(67, "cleared later")
    assert await here.take_over() == {"ours (content)": 1, "added (content)": 1}
    await replace_whole(here.pool, 67, b"")
    await travis.write(67, "written there too")
    assert await here.take_over() == {"ours (content)": 2}
    assert [await here.content(job_id) for job_id in (66, 67)] == [b"", b""]


async def test_a_job_running_when_the_drain_started_ends_up_complete(here, travis):
    log_id = await travis.log(68)
    await travis.part(log_id, 0, "the ")
    await here.take_over()
    await here.store(part(68, 1, b"end", final=True))
    assert await here.content(68) == b"end"
    await travis.part(log_id, 1, "end", final=True)
    assert await here.take_over() == {"ours (parts)": 1}
    await travis.write(68, "the end", updated_at=THEN)
    assert await here.take_over() == {"changed (content)": 1}
    assert await here.content(68) == b"the end"
    await here.store(part(68, 2, b"stale"))
    assert await here.content(68) == b"the end"


async def test_archived_text_is_read_from_the_archive_and_never_overwritten(here, travis):
    text = b"0123456789" * 3
    bucket, store = here.settings.s3.bucket, s3(here.settings)
    store.put_object(Bucket=bucket, Key=key(70), Body=text)
    log_id = await travis.archived(70)
    await travis.archived(71)
    await here.take_over()
    async with serving(here.settings, here.pool) as client:
        body = (await client.get(f"/logs/{log_id}?by=id")).json()
        assert (body["job_id"], body["content"]) == (70, text.decode())
        assert body["archive_verified"] and body["archived_at"].startswith("2026-11-24T10:00")
        whole = await client.get("/logs/70/raw")
        some = await client.get("/logs/70/raw", headers={"Range": "bytes=8-12"})
        assert (whole.content, some.status_code, some.content) == (text, 206, b"89012")
        known = {"If-None-Match": whole.headers["etag"]}
        assert (await client.get("/logs/70/raw", headers=known)).status_code == 304
        assert (await client.get("/logs/71?content=false")).json()["content"] is None
        assert (await client.get("/logs/71")).status_code == 410

        lifecycle = (await client.get("/logs/70/lifecycle")).json()
        assert lifecycle["attempts"][0]["began_at"] is None
        assert (await client.get("/logs/70/raw?attempt=")).content == text

        # Parts from a runner after the end change nothing.
        for attempt in ("", "a"):
            now = datetime.now(UTC)
            await here.store(part(70, 9, b"late", attempt=attempt, published_at=now))
        assert (await read_stats(here.pool)).oldest_unarchived_seconds < 3600
        with pytest.raises(PartsGone):
            async with here.pool.acquire() as connection:
                await aggregation.aggregate(connection, 70, force=True, restore=True)
        assert (await client.get("/logs/70/raw")).content == text

        # Writing content whole starts the log over, as always.
        await client.put("/logs/70", content=b"")
        await here.store(part(70, 0, b"run again", attempt="b"))
        assert (await client.get("/logs/70/raw")).content == b"run again"


async def test_a_large_text_is_imported_completely(here, travis):
    await travis.connection.execute(
        "INSERT INTO logs (job_id, content, aggregated_at)"
        " VALUES (80, repeat('0123456789ä', $1), now())",
        5 * 2**20,
    )
    assert await here.take_over() == {"added (content)": 1}
    sha256 = await here.finish(80)
    assert sha256 == hashlib.sha256("0123456789ä".encode() * (5 * 2**20)).hexdigest()


async def test_a_held_log_stays_and_is_reported(here, travis):
    for job_id in (90, 91):
        await travis.log(job_id, "evidence")
    await here.take_over()
    async with here.pool.acquire() as connection:
        await holds.put_on(connection, 90, "case 7")
    for job_id in (90, 91):
        await travis.write(job_id, "changed")
    assert await here.take_over() == {"ours (content)": 1, "changed (content)": 1}
    assert await here.content(90) == b"evidence"
    assert ["job 90" in note and "hold" in note for note in here.notes] == [True]


@pytest.mark.parametrize("text", [None, "again"])
async def test_a_log_deleted_by_retention_is_imported_again_only_if_it_changed(here, travis, text):
    await travis.archived(95)
    await here.take_over()
    await here.pool.execute("DELETE FROM log_attempts")
    await here.pool.execute("DELETE FROM logs")  # as retention does
    assert await here.take_over() == {"same (archived)": 1}
    await travis.write(95, text)
    assert sum((await here.take_over()).values()) == 1
    assert await here.content(95) == (text or "").encode()


async def test_text_of_a_newer_attempt_is_not_compared_with_the_imported_one(here, travis):
    await travis.log(97, "first run")
    await here.take_over()
    await here.finish(97)
    await here.store(part(97, 0, b"another run"))
    assert await here.take_over(verify=True) == {"different (content)": 1}
