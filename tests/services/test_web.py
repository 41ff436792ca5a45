"""The HTTP API over a real socket, at every stage of a log."""

import hashlib
from contextlib import AsyncExitStack

import pytest

from db import logs
from tests.support.parts import part, store_parts
from tests.support.services import serving

# A character split between two parts, a NUL, and invalid UTF-8.
CONTENT = [b"caf\xc3", b"\xa9\0", b"\xff end"]
BYTES = b"".join(CONTENT)


@pytest.mark.parametrize("where", ["parts", "database", "archive"])
async def test_a_log_reads_the_same_at_every_stage(web, move_to, job_id, where):
    await move_to(where, CONTENT)
    raw = await web.get(f"/logs/{job_id}/raw")
    assert (raw.status_code, raw.content) == (200, BYTES)
    assert raw.headers["content-type"] == "text/plain; charset=utf-8"
    if where != "parts":
        assert int(raw.headers["content-length"]) == len(BYTES)
    response = await web.get(f"/logs/{job_id}?by=job_id&source=api")
    log = response.json()
    assert log["content"] == BYTES.decode("utf-8", "replace")
    assert log.keys() == {
        "@type", "id", "job_id", "content", "created_at", "updated_at", "aggregated_at",
        "archived_at", "archive_verified", "archiving", "purged_at", "removed_at",
        "removed_by_id",
        "complete",
    }  # fmt: skip
    assert (log["@type"], log["job_id"]) == ("log", job_id)
    assert log["archive_verified"] is (where == "archive")
    assert (log["purged_at"] is not None) is (where == "archive")
    by_id = await web.get(f"/logs/{log['id']}?by=id&content=false")
    assert by_id.json() == {**log, "content": None}


async def test_a_large_log_streams_while_it_is_purged(web, pool, move_to, job_id):
    """A response that started from the database continues from the archive."""
    content = await move_to("archiving", [bytes(range(256)) * 4096 * 8])  # 8 MiB
    sha256 = hashlib.sha256(content).hexdigest()
    digest = hashlib.sha256()
    async with web.stream("GET", f"/logs/{job_id}/raw") as response:
        pieces = response.aiter_raw()
        digest.update(await anext(pieces))
        async with pool.acquire() as connection:
            await logs.mark_verified(connection, job_id, sha256)
            assert await logs.purge(connection, job_id, sha256)
        async for piece in pieces:
            digest.update(piece)
    assert digest.hexdigest() == sha256


async def test_slow_readers_hold_no_connection(web, pool, job_id):
    await store_parts(pool, [part(job_id, n, b"x" * 100_000) for n in range(300)])
    async with AsyncExitStack() as readers:
        for _ in range(20):
            await readers.enter_async_context(web.stream("GET", f"/logs/{job_id}/raw"))
        response = await web.get(f"/logs/{job_id}?content=false")
        assert response.status_code == 200
        busy = "SELECT count(*) FROM pg_stat_activity WHERE state = 'idle in transaction'"
        assert await pool.fetchval(busy) == 0


async def test_lifecycle_shows_the_row_and_the_workflow(web, move_to, job_id):
    await move_to("database", CONTENT)
    response = await web.get(f"/logs/{job_id}/lifecycle")
    body = response.json()
    assert response.status_code == 200
    assert (body["phase"], body["parts"], body["bytes"]) == ("aggregating", 4, len(BYTES))
    assert (body["workflow_id"], body["run_id"]) == (f"log-{job_id}", None)
    assert f"log-{job_id}" in body["temporal_ui_url"]


@pytest.mark.parametrize("path", ["", "/raw", "/lifecycle"])
@pytest.mark.parametrize(
    ("log", "status", "error"),
    [
        ("999999999", 404, "no log"),
        ("abc", 400, "must be an integer"),
        ("-1", 400, "must be an integer"),
        ("1.5", 400, "must be an integer"),
        ("9" * 5000, 400, "must be an integer"),
        ("99999999999999999999", 400, "must be an integer"),
    ],
)
async def test_invalid_ids_are_rejected_as_json(web, path, log, status, error):
    response = await web.get(f"/logs/{log}{path}")
    assert response.status_code == status
    assert error in response.json()["error"]


async def test_errors_for_unknown_routes_and_methods_are_json(web):
    unknown = (("GET", "/nope", 404), ("GET", "/schema/nope", 404), ("DELETE", "/logs/1", 405))
    for method, path, status in unknown:
        response = await web.request(method, path)
        assert response.status_code == status
        assert response.json()["error"]
    response = await web.get("/logs/1?by=name")
    assert response.status_code == 400
    assert response.json()["error"].startswith("by: ")


@pytest.mark.parametrize(
    "sent", [None, "", "token", "token wrong", "Bearer the-token", "the-token"]
)
async def test_a_wrong_token_is_rejected(web, sent):
    web.headers.pop("Authorization")
    headers = {} if sent is None else {"Authorization": sent}
    for path in ("/logs/1", "/logs/1/raw", "/logs/1/lifecycle"):
        response = await web.get(path, headers=headers)
        assert response.status_code == 403
        assert "token" in response.json()["error"]


async def test_without_a_configured_token_all_requests_fail(settings, pool):
    async with serving(settings, pool, auth_token=None) as web:
        response = await web.get("/logs/1", headers={"Authorization": "token"})
    assert (response.status_code, response.json()) == (
        500,
        {"error": "authentication token is not set"},
    )


async def test_uptime_and_health_need_no_token(web):
    web.headers.pop("Authorization")
    uptime = (await web.get("/uptime")).json()
    assert uptime["greeting"] == "hello, human 👋!"
    assert uptime.keys() == {"uptime", "greeting", "pong", "now", "version"}
    assert (await web.get("/health/live")).status_code == 200
    ready = await web.get("/health/ready")
    assert (ready.status_code, ready.json()["dependencies"]) == (
        200,
        {"postgres": "ok", "rabbitmq": "ok", "archive": "ok", "temporal": "ok"},
    )


async def test_readiness_names_the_failed_dependency(settings, pool):
    away = settings.model_copy(
        update={"s3": settings.s3.model_copy(update={"bucket": "missing-bucket"})}
    )
    async with serving(away, pool) as web:
        response = await web.get("/health/ready")
    assert response.status_code == 503
    assert "missing-bucket" in response.json()["dependencies"]["archive"]
