"""Writing and clearing the whole content of logs over HTTP."""

import asyncio

import pytest

from tests.support.parts import content, part, store_parts
from tests.support.services import serving
from workflows.client.connection import connect_temporal
from workflows.lifecycle_types import workflow_id


async def test_whole_content_replaces_all_parts(web, pool, job_id):
    await store_parts(pool, [part(job_id, 0, b"secret", attempt="a")])
    response = await web.put(
        f"/logs/{job_id}?removed_by=7&clear=1&source=hub", content=b"gone\0\xff"
    )
    log = response.json()
    assert response.status_code == 200
    assert (log["@type"], log["job_id"], log["removed_by_id"]) == ("log", job_id, 7)
    assert log["content"] == "gone\0\N{REPLACEMENT CHARACTER}"
    assert log["removed_at"]
    # A late part of a closed attempt.
    await store_parts(pool, [part(job_id, 1, b"secret again", attempt="a", final=True)])
    assert (await web.get(f"/logs/{job_id}/raw")).content == b"gone\0\xff"
    assert (await web.get(f"/logs/{job_id}/lifecycle")).json()["stale_parts"] == 1
    assert await pool.fetchval("SELECT count(*) FROM log_parts") == 1


async def test_an_empty_body_clears_a_log_for_its_next_run(web, pool, job_id):
    created = (await web.put(f"/logs/{job_id}")).json()
    assert (created["content"], created["removed_at"]) == (None, None)
    await web.put(f"/logs/{job_id}?removed_by=7", content=b"removed by hand")
    cleared = (await web.put(f"/logs/{job_id}", content=b"")).json()
    assert cleared["id"] == created["id"]
    assert (cleared["content"], cleared["removed_at"], cleared["removed_by_id"]) == (
        None,
        None,
        None,
    )
    assert (await web.get(f"/logs/{job_id}")).json()["content"] is None
    await store_parts(pool, [part(job_id, 0, b"next run", attempt="b")])
    assert (await web.get(f"/logs/{job_id}/raw")).content == b"next run"


async def test_many_logs_are_written_all_or_none(web, pool, job_id):
    logs = [
        {"job_id": job_id, "content": "one é", "removed_by": 3},
        {"job_id": str(job_id + 1), "content": "two"},
        {"job_id": job_id + 2},
    ]
    response = await web.post("/logs/multi", json=logs)
    assert (response.status_code, response.content) == (204, b"")
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
    for body, error in refused:
        response = await web.post("/logs/multi", json=body)
        assert response.status_code == 400, error
        assert error in response.json()["error"]
    async with pool.acquire() as connection:
        assert await content(connection, job_id + 1) == b"two"


async def test_concurrent_writes_are_all_answered(web, job_id):
    responses = await asyncio.gather(
        *(web.put(f"/logs/{job_id}", content=b"%d" % n) for n in range(40))
    )
    assert [response.status_code for response in responses] == [200] * 40
    assert [response.json()["content"] for response in responses] == [str(n) for n in range(40)]


async def test_a_large_content_is_returned_whole(web, job_id):
    content = bytes(range(256)) * 20_000
    response = await web.put(f"/logs/{job_id}", content=content)
    assert response.json()["content"] == content.decode("utf-8", "replace")
    assert response.json()["job_id"] == job_id


@pytest.mark.parametrize(("method", "path"), [("POST", "/logs/multi"), ("PUT", "/log-parts/1/0")])
async def test_a_missing_body_is_reported(web, method, path):
    response = await web.request(method, path)
    assert (response.status_code, response.json()) == (400, {"error": "the body is missing"})


async def test_half_of_a_surrogate_pair_costs_one_character(web, job_id):
    body = b'[{"job_id":%d,"content":"\\\\ud800 a\\ud800\\ud83c\\udf89b"}]' % job_id
    assert (await web.post("/logs/multi", content=body)).status_code == 204
    read = (await web.get(f"/logs/{job_id}")).json()
    assert read["content"] == "\\ud800 a\N{REPLACEMENT CHARACTER}\N{PARTY POPPER}b"
    response = await web.post("/logs/multi", content=b'[{"job_id":1,"content":"\\ud8"}]')
    assert response.status_code == 400
    assert response.json()["error"]


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("/logs/x", "job_id must be an integer"),
        ("/logs/1?removed_by=me", "removed_by"),
        (f"/logs/1?removed_by={2**64}", "removed_by"),
    ],
)
async def test_invalid_input_is_rejected_by_field(web, path, error):
    response = await web.put(path, content=b"text")
    assert response.status_code == 400
    assert error in response.json()["error"]


async def test_the_workflow_is_signalled(web, settings, job_id):
    await web.put(f"/logs/{job_id}", content=b"text")
    response = await web.post(f"/logs/{job_id}/archive")
    assert response.status_code == 202
    client = await connect_temporal(settings.temporal)
    history = await client.get_workflow_handle(workflow_id(job_id)).fetch_history()
    names = [
        event.workflow_execution_signaled_event_attributes.signal_name
        for event in history.events
        if event.HasField("workflow_execution_signaled_event_attributes")
    ]
    assert sorted(names) == ["archive_again", "content_replaced"]
    assert (await web.post("/logs/999999/archive")).status_code == 404


async def test_logs_can_be_written_while_temporal_is_down(settings, pool, job_id):
    away = settings.temporal.model_copy(update={"address": "127.0.0.1:1"})
    async with serving(settings.model_copy(update={"temporal": away}), pool) as web:
        assert (await web.put(f"/logs/{job_id}", content=b"text")).status_code == 200
        response = await web.post(f"/logs/{job_id}/archive")
        assert (response.status_code, "retry-after" in response.headers) == (503, True)
        assert (await web.get(f"/logs/{job_id}/lifecycle")).json()["phase"] == "receiving"
        assert (await web.get("/logs?phase=stuck")).status_code == 503
        assert len((await web.get("/logs")).json()["logs"]) == 1


async def test_writing_needs_the_token_even_with_public_reads(settings, pool, job_id):
    async with serving(settings, pool, public_reads=True) as web:
        del web.headers["Authorization"]
        for method, path in (
            ("PUT", f"/logs/{job_id}"),
            ("POST", "/logs/multi"),
            ("POST", f"/logs/{job_id}/archive"),
            ("PUT", f"/log-parts/{job_id}/0"),
            ("POST", "/log-parts/multi"),
        ):
            response = await web.request(method, path, content=b"[]")
            assert response.status_code == 403, path


async def test_a_missing_token_setting_is_reported(settings, pool):
    async with serving(settings, pool, auth_token=None) as web:
        for method, path in (("PUT", "/logs/1"), ("POST", "/logs/multi"), ("GET", "/log-parts/1")):
            response = await web.request(method, path)
            assert response.status_code == 500
            assert response.json() == {"error": "authentication token is not set"}
