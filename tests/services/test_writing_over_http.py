"""Writing and clearing whole logs over HTTP."""

import asyncio

import pytest

from db.parts import store_batch
from tests.support.parts import content, part
from tests.support.services import serving
from workflows.client import connection as temporal
from workflows.types import workflow_id


@pytest.fixture
async def web(settings, pool):
    async with serving(settings, pool) as client:
        yield client


async def test_content_written_whole_takes_the_place_of_all_before(web, pool, job_id):
    async with pool.acquire() as connection:
        await store_batch(connection, [part(job_id, 0, b"secret", attempt="a")])
    answer = await web.put(f"/logs/{job_id}?removed_by=7&clear=1&source=hub", content=b"gone\0\xff")
    log = answer.json()
    assert answer.status_code == 200
    assert (log["@type"], log["job_id"], log["removed_by_id"]) == ("log", job_id, 7)
    assert log["content"] == "gone\0\N{REPLACEMENT CHARACTER}"
    assert log["removed_at"]
    async with pool.acquire() as connection:  # late, of an attempt that was there
        await store_batch(connection, [part(job_id, 1, b"secret again", attempt="a", final=True)])
    assert (await web.get(f"/logs/{job_id}/raw")).content == b"gone\0\xff"
    assert await pool.fetchval("SELECT count(*) FROM log_parts") == 1


async def test_an_empty_body_clears_a_log_for_its_next_run(web, pool, job_id):
    made = (await web.put(f"/logs/{job_id}")).json()
    assert (made["content"], made["removed_at"]) == ("", None)
    await web.put(f"/logs/{job_id}?removed_by=7", content=b"removed by hand")
    cleared = (await web.put(f"/logs/{job_id}", content=b"")).json()
    assert cleared["id"] == made["id"]
    assert (cleared["content"], cleared["removed_at"], cleared["removed_by_id"]) == ("", None, None)
    async with pool.acquire() as connection:
        await store_batch(connection, [part(job_id, 0, b"next run", attempt="b")])
    assert (await web.get(f"/logs/{job_id}/raw")).content == b"next run"


async def test_many_logs_are_written_all_or_none(web, pool, job_id):
    logs = [
        {"job_id": job_id, "content": "one é", "removed_by": 3},
        {"job_id": str(job_id + 1), "content": "two"},
        {"job_id": job_id + 2},
    ]
    answer = await web.post("/logs/multi", json=logs)
    assert (answer.status_code, answer.content) == (204, b"")
    async with pool.acquire() as connection:
        texts = [await content(connection, job_id + n) for n in range(3)]
    assert texts == ["one é".encode(), b"two", b""]
    changed = [log | {"content": "changed"} for log in logs]
    refused = [
        ([*changed, {"job_id": "x", "content": "never"}], "[3].job_id: "),
        ([*changed, {"job_id": -1}], "[3].job_id: "),
        ([*changed, {"content": "never"}], "job_id"),
        ([*changed, {"job_id": 1, "content": 7}], "content"),
        ([*changed, {"job_id": 1, "removed_by": 2**64}], "removed_by"),
        ({"job_id": 1}, "array"),
    ]
    for body, said in refused:
        answer = await web.post("/logs/multi", json=body)
        assert answer.status_code == 400, said
        assert said in answer.json()["error"]
    async with pool.acquire() as connection:
        assert await content(connection, job_id + 1) == b"two"


async def test_contents_written_at_once_are_all_answered(web, job_id):
    answers = await asyncio.gather(
        *(web.put(f"/logs/{job_id}", content=b"%d" % n) for n in range(40))
    )
    assert [answer.status_code for answer in answers] == [200] * 40
    assert [answer.json()["content"] for answer in answers] == [str(n) for n in range(40)]


async def test_a_large_content_is_answered_whole(web, job_id):
    content = bytes(range(256)) * 20_000
    answer = await web.put(f"/logs/{job_id}", content=content)
    assert answer.json()["content"] == content.decode("utf-8", "replace")
    assert answer.json()["job_id"] == job_id


@pytest.mark.parametrize(("method", "path"), [("POST", "/logs/multi"), ("PUT", "/log-parts/1/0")])
async def test_a_missing_body_is_said(web, method, path):
    answer = await web.request(method, path)
    assert (answer.status_code, answer.json()) == (400, {"error": "the body is missing"})


async def test_a_surrogate_half_is_refused_not_stored(web):
    answer = await web.post("/logs/multi", content=b'[{"job_id":1,"content":"\\ud800"}]')
    assert answer.status_code == 400
    assert answer.json()["error"]


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/logs/x", "job_id must be an integer"),
        ("/logs/1?removed_by=me", "removed_by"),
        (f"/logs/1?removed_by={2**64}", "removed_by"),
    ],
)
async def test_wrong_input_is_refused_with_its_field(web, path, said):
    answer = await web.put(path, content=b"text")
    assert answer.status_code == 400
    assert said in answer.json()["error"]


async def test_the_workflow_is_told_to_act(web, settings, job_id):
    await web.put(f"/logs/{job_id}", content=b"text")
    answer = await web.post(f"/logs/{job_id}/archive")
    assert answer.status_code == 202
    client = await temporal.connect(settings.temporal)
    history = await client.get_workflow_handle(workflow_id(job_id)).fetch_history()
    names = [
        event.workflow_execution_signaled_event_attributes.signal_name
        for event in history.events
        if event.HasField("workflow_execution_signaled_event_attributes")
    ]
    assert sorted(names) == ["archive_again", "content_replaced"]
    assert (await web.post("/logs/999999/archive")).status_code == 404


async def test_with_temporal_away_writing_works_and_asking_to_archive_says_why(
    settings, pool, job_id
):
    away = settings.temporal.model_copy(update={"address": "127.0.0.1:1"})
    async with serving(settings.model_copy(update={"temporal": away}), pool) as web:
        assert (await web.put(f"/logs/{job_id}", content=b"text")).status_code == 200
        answer = await web.post(f"/logs/{job_id}/archive")
        assert (answer.status_code, "retry-after" in answer.headers) == (503, True)
        assert (await web.get(f"/logs/{job_id}/lifecycle")).json()["phase"] == "receiving"
        assert (await web.get("/logs?phase=stuck")).status_code == 503
        assert len((await web.get("/logs")).json()["logs"]) == 1


async def test_writing_needs_the_token_even_where_reading_is_public(settings, pool, job_id):
    async with serving(settings, pool, public_reads=True) as web:
        del web.headers["Authorization"]
        for method, path in (
            ("PUT", f"/logs/{job_id}"),
            ("POST", "/logs/multi"),
            ("POST", f"/logs/{job_id}/archive"),
            ("PUT", f"/log-parts/{job_id}/0"),
            ("POST", "/log-parts/multi"),
        ):
            answer = await web.request(method, path, content=b"[]")
            assert answer.status_code == 403, path


async def test_no_token_on_the_server_is_said(settings, pool):
    async with serving(settings, pool, auth_token=None) as web:
        for method, path in (("PUT", "/logs/1"), ("POST", "/logs/multi"), ("GET", "/log-parts/1")):
            answer = await web.request(method, path)
            assert answer.status_code == 500
            assert answer.json() == {"error": "authentication token is not set"}
