"""Reading logs over HTTP: ranges, attempts, parts, outline, search, lists."""

import asyncio
import random

import pytest

from db import aggregation, logs
from db.parts import store_batch
from logflume.archive.store import Archive
from logflume.domain import LAST
from tests.support.parts import part, write_whole
from tests.support.services import serving


@pytest.fixture
async def web(settings, pool):
    async with serving(settings, pool) as client:
        yield client


@pytest.fixture
def store(pool, job_id):
    async def store(*parts) -> None:
        async with pool.acquire() as connection:
            await store_batch(
                connection, [part(job_id, *p[:2], **(p[2:] or [{}])[0]) for p in parts]
            )

    return store


WHERE = ["parts", "database", "archiving", "archive", "cut short"]


@pytest.fixture
def brought(pool, settings, job_id, store):
    """Bring a log to where it is to be read from."""

    async def brought(where: str, pieces: list[bytes]) -> bytes:
        await store(*((n, piece) for n, piece in enumerate(pieces)), (len(pieces), b"", END))
        content = b"".join(pieces)
        if where == "parts":
            return content
        async with pool.acquire() as connection:
            made = await aggregation.aggregate(connection, job_id, force=False, restore=False)
            if where == "database":
                return content

            async def read(start: int, size: int) -> bytes:
                return content[start : start + size]

            await logs.mark_archiving(connection, job_id, made.sha256)
            archive = Archive(settings.s3, 1)
            await archive.upload(job_id, read, made.bytes, sha256=made.sha256, parts=made.parts)
            if where == "archiving":
                return content
            await logs.mark_verified(connection, job_id, made.sha256)
            assert await logs.purge(connection, job_id, made.sha256)
            if where == "cut short":
                await connection.execute("DELETE FROM log_parts")
        return content

    return brought


END = {"final": True}


@pytest.mark.parametrize("where", WHERE)
async def test_any_range_of_a_log_is_the_same_wherever_it_is(web, brought, job_id, where):
    rng = random.Random(7)
    pieces = [rng.randbytes(rng.choice((1, 700, 1653, 90_000))) for _ in range(40)]
    content = await brought(where, pieces)
    size = len(content)
    whole = await web.get(f"/logs/{job_id}/raw")
    assert whole.content == content
    assert whole.headers["accept-ranges"] == "bytes"
    etag = whole.headers["etag"]
    spans = [(0, 0), (0, size - 1), (size - 1, size + 5), (5, 5)]
    spans += [
        (first, last) for first, last in (sorted(rng.sample(range(size), 2)) for _ in range(12))
    ]
    for first, last in spans:
        answer = await web.get(f"/logs/{job_id}/raw", headers={"Range": f"bytes={first}-{last}"})
        assert answer.status_code == 206
        assert answer.content == content[first : last + 1]
        sent = f"bytes {first}-{min(last, size - 1)}/{size}"
        assert answer.headers["content-range"] == sent
        assert int(answer.headers["content-length"]) == len(answer.content)
    tail = await web.get(f"/logs/{job_id}/raw", headers={"Range": "bytes=-1000"})
    assert (tail.status_code, tail.content) == (206, content[-1000:])
    open_end = await web.get(f"/logs/{job_id}/raw", headers={"Range": f"bytes={size - 3}-"})
    assert open_end.content == content[-3:]
    behind = await web.get(f"/logs/{job_id}/raw", headers={"Range": f"bytes={size}-"})
    assert behind.status_code == 416
    assert behind.headers["content-range"] == f"bytes */{size}"
    assert behind.json()["error"]
    for odd in ("bytes=1-2,4-5", "lines=1-2", "bytes=5-1", "bytes=x"):
        answer = await web.get(f"/logs/{job_id}/raw", headers={"Range": odd})
        assert (answer.status_code, answer.content) == (200, content)
    same = await web.get(f"/logs/{job_id}/raw", headers={"If-None-Match": f'"x", W/{etag}'})
    assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", etag)
    other = {"Range": "bytes=0-0", "If-Range": '"other"'}
    assert (await web.get(f"/logs/{job_id}/raw", headers=other)).status_code == 200
    fits = {"Range": "bytes=0-0", "If-Range": etag}
    assert (await web.get(f"/logs/{job_id}/raw", headers=fits)).status_code == 206
    head = await web.head(f"/logs/{job_id}/raw")
    assert (head.status_code, head.content) == (200, b"")
    assert int(head.headers["content-length"]) == size
    assert head.headers["etag"] == etag


async def test_raw_is_safe_to_open_and_can_be_kept(web, store, job_id):
    await store((0, b"<script>alert(1)</script>", END))
    answer = await web.get(f"/logs/{job_id}/raw?download")
    assert answer.headers["content-disposition"] == f'attachment; filename="job-{job_id}.log"'
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in answer.headers["content-security-policy"]
    assert answer.headers["cache-control"] == "private, no-cache"


async def test_an_empty_log_has_no_range(web, pool, job_id):
    async with pool.acquire() as connection:
        await write_whole(connection, job_id, b"")
    answer = await web.get(f"/logs/{job_id}/raw")
    assert (answer.status_code, answer.content) == (200, b"")
    answer = await web.get(f"/logs/{job_id}/raw", headers={"Range": "bytes=0-"})
    assert answer.status_code == 416


@pytest.mark.parametrize("where", ["parts", "archive"])
async def test_a_large_log_as_json_is_the_same_text(web, brought, job_id, where):
    rng = random.Random(3)
    text = "".join(rng.choice('aé😀"\\\0\n\x1b') for _ in range(700_000)).encode()
    content = await brought(where, [text[i : i + 1653] for i in range(0, len(text), 1653)])
    log = (await web.get(f"/logs/{job_id}")).json()
    assert log["content"] == content.decode()
    assert log["job_id"] == job_id


@pytest.mark.parametrize("where", ["parts", "database"])
@pytest.mark.parametrize(
    ("parts", "size"), [(0, 0), (499, 10), (500, 10), (1, 16_384), (3, 16_385), (70, 15_000)]
)
async def test_a_small_log_as_json_is_the_same_text_up_to_where_it_is_no_longer_small(
    web, brought, job_id, where, parts, size
):
    content = await brought(where, [b"%03d|" % n + b"x" * (size - 4) for n in range(parts)])
    log = (await web.get(f"/logs/{job_id}")).json()
    assert log["content"] == content.decode()
    assert (log["aggregated_at"] is None) == (where == "parts")


async def test_late_parts_are_read_though_the_log_was_aggregated(web, pool, store, job_id):
    await store((0, b"a"))
    async with pool.acquire() as connection:
        await aggregation.aggregate(connection, job_id, force=True, restore=False)
    assert (await web.get(f"/logs/{job_id}/raw")).content == b"a"
    await store((1, b"b"))
    assert (await web.get(f"/logs/{job_id}/raw")).content == b"ab"
    async with pool.acquire() as connection:
        await aggregation.aggregate(connection, job_id, force=True, restore=False)
        assert not await connection.fetchval("SELECT late_parts FROM logs")
    assert (await web.get(f"/logs/{job_id}")).json()["content"] == "ab"


async def test_late_parts_never_hide_what_only_the_archive_still_has(
    web, pool, brought, store, job_id
):
    content = await brought("cut short", [b"old and whole"])
    await store((5, b"late"))
    assert (await web.get(f"/logs/{job_id}/raw")).content == content


async def test_earlier_attempts_can_be_read(web, pool, store, job_id):
    await store((0, b"first ", {"attempt": "a"}), (1, b"run", {"attempt": "a", **END}))
    await store((0, b"second", {"attempt": "b"}), (LAST, b" last", {"attempt": ""}))
    assert (await web.get(f"/logs/{job_id}/raw")).content == b"second last"
    for call in ("/raw", ""):
        answer = await web.get(f"/logs/{job_id}{call}?attempt=a")
        text = answer.text if call else answer.json()["content"]
        assert text == "first run"
    assert (await web.get(f"/logs/{job_id}/raw?attempt=b")).content == b"second last"
    told = (await web.get(f"/logs/{job_id}/lifecycle")).json()["attempts"]
    assert [(a["uuid"], a["is_log"]) for a in told] == [("a", False), ("b", True), ("", False)]
    async with pool.acquire() as connection:
        await write_whole(connection, job_id, b"")
    for attempt in ("a", "b", "", "nope"):
        answer = await web.get(f"/logs/{job_id}/raw?attempt={attempt}")
        assert answer.status_code == 404
        assert "no attempt" in answer.json()["error"]


async def test_parts_are_listed_by_number(web, pool, store, job_id):
    await store((3, b"d\xff"), (0, b"a"), (1, b"b"), (LAST, b"z", END))

    async def listed(query: str):
        answer = await web.get(f"/log-parts/{job_id}{query}")
        assert answer.status_code == 200
        told = answer.json()
        assert (told["@type"], told["job_id"]) == ("log_parts", job_id)
        return [(p["number"], p.get("content"), p["final"]) for p in told["log_parts"]]

    d = "d\N{REPLACEMENT CHARACTER}"
    every = [(0, "a", False), (1, "b", False), (3, d, False), (LAST, "z", True)]
    assert await listed("") == every
    assert await listed("?after=1&source=api") == every[2:]
    assert await listed("?part_numbers=0,%203") == [every[0], every[2]]
    assert await listed("?part_numbers=") == every
    assert await listed("?part_numbers=0,3&after=0") == [every[2]]
    assert await listed("?content=false") == [(n, None, final) for n, _, final in every]
    unavailable = [(0, "Your log is temporarily unavailable", False)]
    assert await listed("?part_numbers=0,1&require_all=true") == every[:2]
    assert await listed("?part_numbers=0,2&require_all=true") == unavailable
    assert await listed("?require_all=true") == unavailable
    assert await listed("?after=100") == [every[3]]
    async with pool.acquire() as connection:
        await aggregation.aggregate(connection, job_id, force=False, restore=False)
    assert await listed("") == [(0, "log aggregated", True)]
    for query in ("?after=x", "?part_numbers=1,x", "?require_all=2x"):
        answer = await web.get(f"/log-parts/{job_id}{query}")
        assert answer.status_code == 400
        assert answer.json()["error"].startswith(query[1:].split("=")[0])
    assert (await web.get("/log-parts/999999")).status_code == 404


async def test_a_logs_own_id(web, store, job_id):
    await store((0, b"a"))
    told = (await web.get(f"/logs/{job_id}/id")).json()
    assert told == {"@type": "log", "id": told["id"]}
    assert (await web.get(f"/logs/{told['id']}?by=id")).json()["job_id"] == job_id


@pytest.mark.parametrize("where", ["parts", "database"])
async def test_the_outline_finds_lines_and_markers(web, brought, job_id, where):
    rng = random.Random(5)
    lines = [b"x" * rng.randrange(200) for _ in range(9000)]
    lines[10] = b"travis_fold:start:a\r\x1b[0Ktravis_time:start:1f\r\x1b[0K$ make"
    lines[8000] = b"travis_time:end:1f:start=1,finish=2,duration=1\r\x1b[0Ktravis_fold:end:a\r"
    content = b"\n".join(lines)
    assert await brought(where, [content[i : i + 1653] for i in range(0, len(content), 1653)])
    told = (await web.get(f"/logs/{job_id}/outline")).json()
    size = told["block_bytes"]
    blocks = range(0, len(content), size)
    counted = [content.count(b"\n", 0, end) for end in blocks] + [content.count(b"\n")]
    assert told["newlines"] == counted
    assert (told["bytes"], told["lines"]) == (len(content), len(lines))
    expected = []
    for line, name in (
        (10, b"travis_fold:start:a"),
        (10, b"travis_time:start:1f"),
        (8000, b"travis_time:end:1f:start=1,finish=2,duration=1"),
        (8000, b"travis_fold:end:a"),
    ):
        expected.append([content.index(name), line, name.decode()])
    assert told["marks"] == expected
    assert told["ended"] is True
    if where == "parts":
        stream = await web.get(f"/logs/{job_id}/stream", headers={"Last-Event-ID": told["cursor"]})
        assert "event: final" in stream.text and "event: part" not in stream.text


async def test_markers_across_pieces_are_found_and_bounded(web, pool, job_id):
    mark = b"travis_fold:start:" + b"n" * 300 + b"\n"
    content = (b"." * (1024 * 1024 - 7)) + mark + mark * 20_100
    async with pool.acquire() as connection:
        await write_whole(connection, job_id, content)
    told = (await web.get(f"/logs/{job_id}/outline")).json()
    assert told["marks_truncated"] is True
    assert len(told["marks"]) == 20_000
    assert told["marks"][0] == [1024 * 1024 - 7, 0, "travis_fold:start:" + "n" * 200]
    assert told["marks"][-1][1] == 19_999


async def test_search_counts_lines_by_what_they_show(web, store, job_id):
    text = (
        b"plain\n\x1b[31mErr\x1b[0mor: one\r\n\x1b]8;;http://x\x07link\x1b]8;;\x07ed\n"
        b"caf\xc3\xa9 ERROR: two error\n"
    )
    await store((0, text[:20]), (1, text[20:] + b"error"), (2, b"", END))

    async def found(q: str, case: str = "false"):
        answer = await web.get(f"/logs/{job_id}/search", params={"q": q, "case": case})
        assert answer.status_code == 200
        return answer.json()["lines"]

    assert await found("error") == [1, 3, 4]
    assert await found("error", "true") == [3, 4]
    assert await found("Error: one") == [1]
    assert await found("linked") == [2]
    assert await found("CAFÉ") == [3]
    assert await found("[31m") == []
    assert await found(".*") == []
    for query in ("", "?q=", f"?q={'x' * 1001}"):
        assert (await web.get(f"/logs/{job_id}/search{query}")).status_code == 400


async def test_search_over_a_large_log_and_a_line_without_end(web, pool, job_id):
    line = b"y" * (9 * 1024 * 1024)
    content = b"needle\n" * 10_005 + line + b"needle" + line + b"needle\nneedle"
    async with pool.acquire() as connection:
        await write_whole(connection, job_id, content)
    told = (await web.get(f"/logs/{job_id}/search?q=NEEDLE")).json()
    assert told["count"] == 10_007
    assert told["truncated"] is True
    assert told["lines"] == [*range(10_000)]


async def test_logs_are_listed_newest_first_page_by_page(web, pool, job_id):
    jobs = [job_id * 100 + n for n in range(5)]
    async with pool.acquire() as connection:
        for job in jobs:
            await store_batch(connection, [part(job, 0, b"abc", final=True)])
        await aggregation.aggregate(connection, jobs[0], force=False, restore=False)
    first = (await web.get("/logs?limit=3")).json()
    assert [log["job_id"] for log in first["logs"]] == jobs[:1:-1]
    rest = (await web.get(f"/logs?limit=3&before={first['next']}")).json()
    assert [(log["job_id"], log["phase"], log["bytes"]) for log in rest["logs"]] == [
        (jobs[1], "receiving", None),
        (jobs[0], "aggregating", 3),
    ]
    assert rest["next"] is None
    assert (await web.get("/logs?phase=stuck")).json()["logs"] == []
    for query in ("?limit=0", "?limit=201", "?phase=nope", "?before=-1"):
        answer = await web.get(f"/logs{query}")
        assert answer.status_code == 400
        assert answer.json()["error"].startswith(query[1:].split("=")[0])


async def test_readers_of_a_log_that_is_written_meanwhile_see_old_or_new(web, pool, job_id):
    async with pool.acquire() as connection:
        await write_whole(connection, job_id, b"0" * 1000)
    stop = asyncio.Event()

    async def write() -> None:
        async with pool.acquire() as connection:
            number = 0
            while not stop.is_set():
                number += 1
                await write_whole(connection, job_id, b"%d" % (number % 10) * 1000)

    writing = asyncio.create_task(write())
    try:
        for _ in range(100):
            answer = await web.get(f"/logs/{job_id}/raw")
            if answer.status_code == 503:
                assert answer.headers["retry-after"]
                continue
            assert len({*answer.content}) == 1 and len(answer.content) == 1000
            whole = (await web.get(f"/logs/{job_id}")).json().get("content", "0" * 1000)
            assert len({*whole}) == 1 and len(whole) == 1000
    finally:
        stop.set()
        await writing
