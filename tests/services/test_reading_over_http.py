"""Reading logs over HTTP: ranges, attempts, parts, outline, search, lists."""

import asyncio
import json
import random

import pytest

from db.parts import store_batch
from db.reading import LIST_PARTS, find, snapshot
from logflume.domain import LAST, WHOLE, Log
from tests.support.parts import part, replace_whole, write_whole

WHERE = ["parts", "database", "archiving", "archive", "parts dropped"]


END = {"final": True}


@pytest.mark.parametrize("where", WHERE)
async def test_every_range_is_the_same_at_every_stage(web, move_to, job_id, where):
    rng = random.Random(7)
    pieces = [rng.randbytes(rng.choice((1, 700, 1653, 90_000))) for _ in range(40)]
    content = await move_to(where, pieces)
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
        response = await web.get(f"/logs/{job_id}/raw", headers={"Range": f"bytes={first}-{last}"})
        assert response.status_code == 206
        assert response.content == content[first : last + 1]
        sent = f"bytes {first}-{min(last, size - 1)}/{size}"
        assert response.headers["content-range"] == sent
        assert int(response.headers["content-length"]) == len(response.content)
    tail = await web.get(f"/logs/{job_id}/raw", headers={"Range": "bytes=-1000"})
    assert (tail.status_code, tail.content) == (206, content[-1000:])
    open_end = await web.get(f"/logs/{job_id}/raw", headers={"Range": f"bytes={size - 3}-"})
    assert open_end.content == content[-3:]
    behind = await web.get(f"/logs/{job_id}/raw", headers={"Range": f"bytes={size}-"})
    assert behind.status_code == 416
    assert behind.headers["content-range"] == f"bytes */{size}"
    assert behind.json()["error"]
    for odd in ("bytes=1-2,4-5", "lines=1-2", "bytes=5-1", "bytes=x"):
        response = await web.get(f"/logs/{job_id}/raw", headers={"Range": odd})
        assert (response.status_code, response.content) == (200, content)
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


async def test_raw_is_safe_to_open_and_to_download(web, store, job_id):
    await store((0, b"<script>alert(1)</script>", END))
    response = await web.get(f"/logs/{job_id}/raw?download")
    assert response.headers["content-disposition"] == f'attachment; filename="job-{job_id}.log"'
    assert response.headers["content-type"] == "text/plain; charset=utf-8"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in response.headers["content-security-policy"]
    assert response.headers["cache-control"] == "private, no-cache"


async def test_an_empty_log_has_no_ranges(web, pool, job_id):
    await replace_whole(pool, job_id, b"")
    response = await web.get(f"/logs/{job_id}/raw")
    assert (response.status_code, response.content) == (200, b"")
    response = await web.get(f"/logs/{job_id}/raw", headers={"Range": "bytes=0-"})
    assert response.status_code == 416


@pytest.mark.parametrize("where", ["parts", "archive"])
async def test_the_json_of_a_large_log_has_the_same_text(web, move_to, job_id, where):
    rng = random.Random(3)
    text = "".join(rng.choice('aé😀"\\\0\n\x1b') for _ in range(700_000)).encode()
    content = await move_to(where, [text[i : i + 1653] for i in range(0, len(text), 1653)])
    log = (await web.get(f"/logs/{job_id}")).json()
    assert log["content"] == content.decode()
    assert log["job_id"] == job_id


@pytest.mark.parametrize("where", ["parts", "database"])
@pytest.mark.parametrize(
    ("parts", "size"), [(0, 0), (499, 10), (500, 10), (1, 16_384), (3, 16_385), (70, 15_000)]
)
async def test_the_json_of_small_logs_has_the_same_text_around_the_size_limits(
    web, move_to, job_id, where, parts, size
):
    content = await move_to(where, [b"%03d|" % n + b"x" * (size - 4) for n in range(parts)])
    log = (await web.get(f"/logs/{job_id}")).json()
    assert log["content"] == content.decode()
    assert (log["aggregated_at"] is None) == (where == "parts")


async def test_late_parts_of_an_aggregated_log_can_be_read(web, pool, store, aggregate, job_id):
    await store((0, b"a"))
    await aggregate(force=True)
    assert (await web.get(f"/logs/{job_id}/raw")).content == b"a"
    await store((1, b"b"))
    assert (await web.get(f"/logs/{job_id}/raw")).content == b"ab"
    await aggregate(force=True)
    assert not await pool.fetchval("SELECT late_parts FROM logs")
    assert (await web.get(f"/logs/{job_id}")).json()["content"] == "ab"


async def test_late_parts_do_not_hide_archived_content(web, pool, move_to, store, job_id):
    content = await move_to("parts dropped", [b"archived"])
    await store((5, b"late"))
    assert (await web.get(f"/logs/{job_id}/raw")).content == content


async def test_earlier_attempts_can_be_read(web, pool, store, job_id):
    await store((0, b"first ", {"attempt": "a"}), (1, b"run", {"attempt": "a", **END}))
    await store((0, b"second", {"attempt": "b"}), (LAST, b" last", {"attempt": ""}))
    assert (await web.get(f"/logs/{job_id}/raw")).content == b"second last"
    for call in ("/raw", ""):
        response = await web.get(f"/logs/{job_id}{call}?attempt=a")
        text = response.text if call else response.json()["content"]
        assert text == "first run"
    assert (await web.get(f"/logs/{job_id}/raw?attempt=b")).content == b"second last"
    attempts = (await web.get(f"/logs/{job_id}/lifecycle")).json()["attempts"]
    assert [(a["uuid"], a["is_log"]) for a in attempts] == [("a", False), ("b", True), ("", False)]
    await replace_whole(pool, job_id, b"")
    for attempt in ("a", "b", "", "nope"):
        response = await web.get(f"/logs/{job_id}/raw?attempt={attempt}")
        assert response.status_code == 404
        assert "no attempt" in response.json()["error"]


async def test_parts_are_listed_by_number(web, store, aggregate, job_id):
    await store((3, b"d\xff"), (0, b"a"), (1, b"b"), (LAST, b"z", END))

    async def listed(query: str):
        response = await web.get(f"/log-parts/{job_id}{query}")
        assert response.status_code == 200
        listing = response.json()
        assert (listing["@type"], listing["job_id"]) == ("log_parts", job_id)
        return [(p["number"], p.get("content"), p["final"]) for p in listing["log_parts"]]

    d = "d\N{REPLACEMENT CHARACTER}"
    every = [(0, "a", False), (1, "b", False), (3, d, False), (LAST, "z", True)]
    assert await listed("") == every
    assert await listed("?after=1&source=api") == every[2:]
    assert await listed("?part_numbers=0,%203") == [every[0], every[2]]
    assert await listed("?part_numbers=") == every
    assert await listed("?part_numbers=0,3&after=0") == [every[2]]
    assert await listed("?part_numbers[]=0&part_numbers[]=3") == [every[0], every[2]]
    assert await listed("?content=false") == [(n, None, final) for n, _, final in every]
    unavailable = [(0, "Your log is temporarily unavailable", False)]
    assert await listed("?part_numbers=0,1&require_all=true") == every[:2]
    assert await listed("?part_numbers=0,2&require_all=true") == unavailable
    assert await listed("?require_all=true") == unavailable
    assert await listed("?after=100") == [every[3]]
    await aggregate()
    assert await listed("") == [(0, "log aggregated", True)]
    for query in ("?after=x", "?part_numbers=1,x", "?require_all=2x"):
        response = await web.get(f"/log-parts/{job_id}{query}")
        assert response.status_code == 400
        assert response.json()["error"].startswith(query[1:].split("=")[0])
    assert (await web.get("/log-parts/999999")).status_code == 404


async def test_content_written_whole_is_listed_before_the_parts(web, store, aggregate, job_id):
    async def listed(query: str = ""):
        parts = (await web.get(f"/log-parts/{job_id}{query}")).json()["log_parts"]
        return [(p["number"], p.get("content")) for p in parts]

    await web.put(f"/logs/{job_id}", content=b"whole")
    assert (await web.get(f"/logs/{job_id}")).json()["content"] == "whole"
    assert await listed() == await listed("?require_all=true") == [(0, "whole")]
    assert await listed("?after=0") == await listed("?part_numbers=1") == []
    await store((0, b"a", {"attempt": "b"}), (1, b"b", {"attempt": "b"}))
    every = [(0, "whole"), (0, "a"), (1, "b")]
    assert await listed() == await listed("?after=-1&require_all=true") == every
    assert await listed("?part_numbers=0") == every[:2]
    assert await listed("?after=0&require_all=true") == every[2:]
    assert await listed("?content=false") == [(number, None) for number, _ in every]
    await aggregate(force=True)
    assert await listed() == [(0, "log aggregated")]
    await web.put(f"/logs/{job_id}")
    assert await listed() == []


async def test_the_parts_after_a_number_are_read_without_the_others(pool, store, job_id):
    await store(*((number, b"x") for number in range(20_000)))

    async def blocks(connection, log: Log, first: int) -> int:
        attempt = await connection.fetchval("SELECT log_attempt($1)", log.id)
        explain = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {LIST_PARTS}"
        [plan] = json.loads(await connection.fetchval(explain, log.id, attempt, first, LAST))
        return plan["Plan"]["Shared Hit Blocks"] + plan["Plan"]["Shared Read Blocks"]

    async with pool.acquire() as connection:
        await connection.execute("ANALYZE log_parts")
        log = await find(connection, job_id)
        found = await snapshot(connection, log, numbers=(19_990, LAST))
        assert found.parts and [*found.parts.numbers] == [*range(19_990, 20_000)]
        assert await blocks(connection, log, 19_990) < await blocks(connection, log, WHOLE) / 3


async def test_the_id_of_a_log(web, store, job_id):
    await store((0, b"a"))
    log = (await web.get(f"/logs/{job_id}/id")).json()
    assert log == {"@type": "log", "id": log["id"]}
    assert (await web.get(f"/logs/{log['id']}?by=id")).json()["job_id"] == job_id


@pytest.mark.parametrize("where", ["parts", "database"])
async def test_the_outline_finds_lines_and_markers(web, move_to, job_id, where):
    rng = random.Random(5)
    lines = [b"x" * rng.randrange(200) for _ in range(9000)]
    lines[10] = b"travis_fold:start:a\r\x1b[0Ktravis_time:start:1f\r\x1b[0K$ make"
    lines[8000] = b"travis_time:end:1f:start=1,finish=2,duration=1\r\x1b[0Ktravis_fold:end:a\r"
    content = b"\n".join(lines)
    assert await move_to(where, [content[i : i + 1653] for i in range(0, len(content), 1653)])
    outline = (await web.get(f"/logs/{job_id}/outline")).json()
    size = outline["block_bytes"]
    blocks = range(0, len(content), size)
    counted = [content.count(b"\n", 0, end) for end in blocks] + [content.count(b"\n")]
    assert outline["newlines"] == counted
    assert (outline["bytes"], outline["lines"]) == (len(content), len(lines))
    expected = []
    for line, name in (
        (10, b"travis_fold:start:a"),
        (10, b"travis_time:start:1f"),
        (8000, b"travis_time:end:1f:start=1,finish=2,duration=1"),
        (8000, b"travis_fold:end:a"),
    ):
        expected.append([content.index(name), line, name.decode()])
    assert outline["marks"] == expected
    assert outline["bare_lines"] == [8000]
    assert outline["ended"] is True
    if where == "parts":
        resume = {"Last-Event-ID": outline["cursor"]}
        stream = await web.get(f"/logs/{job_id}/stream", headers=resume)
        assert "event: final" in stream.text and "event: part" not in stream.text


async def test_markers_across_pieces_are_found_up_to_a_limit(web, pool, job_id):
    mark = b"travis_fold:start:" + b"n" * 300 + b"\n"
    content = (b"." * (1024 * 1024 - 7)) + mark + mark * 20_100
    await replace_whole(pool, job_id, content)
    outline = (await web.get(f"/logs/{job_id}/outline")).json()
    assert outline["marks_truncated"] is True
    assert len(outline["marks"]) == 20_000
    assert outline["marks"][0] == [1024 * 1024 - 7, 0, "travis_fold:start:" + "n" * 200]
    assert outline["marks"][-1][1] == 19_999


async def test_search_matches_the_visible_text_of_lines(web, store, job_id):
    text = (
        b"plain\n\x1b[31mErr\x1b[0mor: one\r\n\x1b]8;;http://x\x07link\x1b]8;;\x07ed\n"
        b"caf\xc3\xa9 ERROR: two error\n"
    )
    await store((0, text[:20]), (1, text[20:] + b"error"), (2, b"", END))

    async def search(q: str, case: str = "false"):
        response = await web.get(f"/logs/{job_id}/search", params={"q": q, "case": case})
        assert response.status_code == 200
        return response.json()["lines"]

    assert await search("error") == [1, 3, 4]
    assert await search("error", "true") == [3, 4]
    assert await search("Error: one") == [1]
    assert await search("linked") == [2]
    assert await search("CAFÉ") == [3]
    assert await search("[31m") == []
    assert await search(".*") == []
    for query in ("", "?q=", f"?q={'x' * 1001}"):
        assert (await web.get(f"/logs/{job_id}/search{query}")).status_code == 400


async def test_search_of_a_large_log_with_long_lines(web, pool, job_id):
    line = b"y" * (9 * 1024 * 1024)
    content = b"needle\n" * 10_005 + line + b"needle" + line + b"needle\nneedle"
    await replace_whole(pool, job_id, content)
    result = (await web.get(f"/logs/{job_id}/search?q=NEEDLE")).json()
    assert result["count"] == 10_007
    assert result["truncated"] is True
    assert (result["lines"], result["first"]) == ([*range(10_000)], 0)
    near = {"q": "needle", "near": 10_004}
    result = (await web.get(f"/logs/{job_id}/search", params=near)).json()
    assert (result["lines"], result["first"]) == ([*range(5004, 10_007)], 5004)
    assert (result["next_byte"], result["next_line"]) == (len(content) - len(b"needle"), 10_006)
    new = {"q": "e", "from_byte": 7 * 10_004, "from_line": 10_004}
    result = (await web.get(f"/logs/{job_id}/search", params=new)).json()
    assert (result["lines"], result["first"]) == ([10_004, 10_005, 10_006], 0)
    assert (result["next_byte"], result["next_line"]) == (len(content) - len(b"needle"), 10_006)


async def test_logs_are_listed_newest_first_page_by_page(web, pool, aggregate, job_id):
    jobs = [job_id * 100 + n for n in range(5)]
    async with pool.acquire() as connection:
        for job in jobs:
            await store_batch(connection, [part(job, 0, b"abc", final=True)])
    await aggregate(jobs[0])
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
        response = await web.get(f"/logs{query}")
        assert response.status_code == 400
        assert response.json()["error"].startswith(query[1:].split("=")[0])


async def test_readers_of_a_log_that_is_rewritten_see_old_or_new_content(web, pool, job_id):
    await replace_whole(pool, job_id, b"0" * 1000)
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
            response = await web.get(f"/logs/{job_id}/raw")
            if response.status_code == 503:
                assert response.headers["retry-after"]
                continue
            assert len({*response.content}) == 1 and len(response.content) == 1000
            whole = (await web.get(f"/logs/{job_id}")).json().get("content", "0" * 1000)
            assert len({*whole}) == 1 and len(whole) == 1000
    finally:
        stop.set()
        await writing
