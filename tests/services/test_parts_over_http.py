"""Parts over HTTP: access, validation, and that 204 means RabbitMQ confirmed them."""

import asyncio
import base64
import hashlib
import json
from datetime import UTC, datetime, timedelta
from functools import partial

import httpx
import jwt
import pytest
from jwt.api_jws import PyJWS

from logflume import contract
from logflume.domain import LAST
from tests.support.broker import close_connections
from tests.support.http_parts import body, many, runner_token
from tests.support.parts import stored_content
from tests.support.services import draining, serving
from tests.support.waiting import until


@pytest.fixture
def private_key(servers):
    return (servers.data_dir / "jwt_private.pem").read_text()


@pytest.fixture
def token_for(servers):
    return partial(runner_token, servers.data_dir)


@pytest.fixture
def settings(amqp_settings, channel):
    return amqp_settings


async def published(channel, count: int) -> list[dict]:
    queue = await channel.declare_queue(contract.QUEUE, durable=True)
    messages = [await queue.get(no_ack=True, timeout=10) for _ in range(count)]
    for message in messages:
        assert (message.content_type, message.type) == (
            contract.CONTENT_TYPE,
            contract.MESSAGE_TYPE,
        )
        assert message.delivery_mode == 2
        assert datetime.now(UTC) - message.timestamp < timedelta(minutes=1)
    assert await queue.get(no_ack=True, fail=False) is None
    return [json.loads(message.body) for message in messages]


async def test_a_part_is_published_like_a_runner_does(web, channel, token_for, job_id):
    response = await web.put(f"/log-parts/{job_id}/7", json=body())
    assert (response.status_code, response.content) == (204, b"")
    bearer = {"Authorization": f"Bearer {token_for(job_id)}"}
    sent = body(b"x" * 100, final=True)
    response = await web.put(f"/log-parts/{job_id}/last?source=worker", json=sent, headers=bearer)
    assert response.status_code == 204
    first, second = await published(channel, 2)
    assert second.pop("uuid").startswith("token:")
    assert first == {
        "id": job_id,
        "number": 7,
        "log": base64.b64encode(b"hello\0\xff").decode(),
        "encoding": "base64",
        "final": False,
    }
    assert (second["number"], second["final"]) == (LAST, True)
    assert base64.b64decode(second["log"]) == b"x" * 100


async def test_a_token_is_valid_for_its_job_only(web, channel, private_key, token_for, job_id):
    wrong = {
        "another job": token_for(job_id + 1),
        "another algorithm": jwt.encode({"sub": str(job_id)}, private_key, "RS256"),
        "no signature": jwt.encode({"sub": str(job_id)}, "", "none"),
        "hmac with the public key": jwt.encode({"sub": str(job_id)}, "p" * 64, "HS512"),
        "no subject": jwt.encode({"a": 1}, private_key, "RS512"),
        "expired": token_for(job_id, exp=datetime.now(UTC) - timedelta(hours=1)),
        "not a JWT": "x",
    }
    for why, token in wrong.items():
        response = await web.put(
            f"/log-parts/{job_id}/0", json=body(), headers={"Authorization": f"Bearer {token}"}
        )
        assert response.status_code == 403, why
        assert "token" in response.json()["error"]
    for header in ("", "token nope", "Basic x"):
        response = await web.put(
            f"/log-parts/{job_id}/0", json=body(), headers={"Authorization": header}
        )
        assert response.status_code == 403
    assert await published(channel, 0) == []


async def test_the_subject_of_a_token_may_be_an_integer(web, channel, private_key, job_id):
    async def status(subject: object) -> int:
        claims = {"sub": subject}
        token = PyJWS().encode(json.dumps(claims).encode(), private_key, "RS512")
        bearer = {"Authorization": f"Bearer {token}"}
        return (await web.put(f"/log-parts/{job_id}/0", json=body(), headers=bearer)).status_code

    assert await status(job_id) == 204
    for wrong in (job_id + 1, True, float(job_id), [job_id], None):
        assert await status(wrong) == 403
    assert len(await published(channel, 1)) == 1


async def test_the_token_distinguishes_the_runs_of_a_job(settings, web, channel, pool, job_id):
    """A runner gets a token for each run; the tail of a run that died is not in the next log."""
    first, second = (runner_token(settings.stack.folder, job_id, run=run) for run in range(2))

    async def put(number: int, content: bytes, token: str) -> None:
        bearer = {"Authorization": f"Bearer {token}"}
        sent = body(content)
        response = await web.put(f"/log-parts/{job_id}/{number}", json=sent, headers=bearer)
        assert response.status_code == 204

    async def put_many(number: int, content: bytes, token: str) -> None:
        one = body(content, job_id=job_id, number=number, tok=token)
        response = await web.post("/log-parts/multi", json=[one], headers=many(one))
        assert response.status_code == 204

    async def received(count: int) -> bool:
        return count == await pool.fetchval(
            "SELECT (SELECT count(*) FROM log_parts)"
            " + (SELECT coalesce(sum(stale_parts), 0) FROM log_attempts)"
        )

    async with draining(settings):
        await put(0, b"first,", first)
        await until(lambda: received(1))
        assert (await web.put(f"/logs/{job_id}")).status_code == 200  # the job is restarted
        await put_many(0, b"second,", second)
        await put_many(1, b"tail of the first", first)
        await put(2, b"end", second)
        await until(lambda: received(3))
    assert await stored_content(pool, job_id) == b"second,end"


async def test_the_sender_of_a_total_learns_what_is_missing(
    settings, channel, pool, token_for, job_id, monkeypatch
):
    monkeypatch.setattr("web.receipts.ANSWER_SECONDS", 1)
    texts = [b"a", b"b", b"c", b"d"]
    total = {"parts": 4, "bytes": 4, "sha256": hashlib.sha256(b"abcd").hexdigest()}
    bearer = {"Authorization": f"Bearer {token_for(job_id)}"}

    async with serving(settings, pool) as web:

        async def put(number: int, **fields: object) -> httpx.Headers:
            sent = body(texts[number], **fields)
            path = f"/log-parts/{job_id}/{number}"
            response = await web.put(path, json=sent, headers=bearer)
            assert response.status_code == 204
            return response.headers

        await put(1)
        await put(2)
        queue = await channel.declare_queue(contract.QUEUE, durable=True)
        await queue.purge()  # the broker loses them
        await put(0)
        final = {"final": True, "total": total}
        assert "logflume-missing-parts" not in await put(3, **final)  # no drain is running
        async with draining(settings):
            assert (await put(3, **final))["logflume-missing-parts"] == "1-2"
            await put(2)
            assert (await put(3, **final))["logflume-missing-parts"] == "1"
        monkeypatch.setattr("web.receipts.ANSWER_SECONDS", 60)
        await put(1)
        token = token_for(job_id)
        one = body(b"d", job_id=job_id, number=3, tok=token, **final)
        call = asyncio.create_task(web.post("/log-parts/multi", json=[one], headers=many(one)))
        async with draining(settings):  # the call waits for it
            assert (await call).headers["logflume-missing-parts"] == "none"


async def test_a_sender_learns_that_its_log_is_being_read(settings, channel, pool, job_id):
    async with serving(settings, pool) as web, serving(settings, pool) as other:

        async def seconds() -> str:
            response = await web.put(f"/log-parts/{job_id}/0", json=body())
            return response.headers["logflume-flush-seconds"]

        async def is_stored() -> bool:
            return (await other.get(f"/logs/{job_id}")).status_code == 200

        async def is_short() -> bool:
            return await seconds() == "0.5"

        assert await seconds() == "5"
        async with draining(settings):
            await until(is_stored)
            async with other.stream("GET", f"/logs/{job_id}/stream"):
                await until(is_short)


@pytest.mark.parametrize(
    ("path", "sent", "error"),
    [
        ("1/0", body(total={"parts": 1}), "total"),
        ("1/0", body(total={"parts": 1, "bytes": 0, "sha256": "0" * 64}), "total: only on a final"),
        ("x/0", body(), "job_id must be an integer"),
        ("1/x", body(), "number: "),
        ("1/-1", body(), "number: "),
        (f"1/{2**31}", body(), "number: "),
        ("1/0", body() | {"@type": "log"}, "@type should be log_part"),
        ("1/0", body(encoding="text"), "invalid encoding"),
        ("1/0", body() | {"content": "a?b="}, "content: not base64"),
        ("1/0", body() | {"content": 7}, "content"),
        ("1/0", {"@type": "log_part"}, "content"),
        ("1/0", [], "object"),
    ],
)
async def test_a_malformed_part_is_rejected_by_field(web, channel, path, sent, error):
    response = await web.put(f"/log-parts/{path}", json=sent)
    assert response.status_code == 400
    assert error in response.json()["error"]
    assert await published(channel, 0) == []


async def test_invalid_json_and_large_bodies_are_rejected(settings, channel, pool):
    async with serving(settings, pool, max_body_bytes=2000) as web:
        for path in ("/log-parts/1/0", "/log-parts/multi"):
            call = web.put if path.endswith("0") else web.post
            response = await call(path, content=b"{nope", headers=many())
            assert response.status_code in (400, 403)
        assert (await web.put("/log-parts/1/0", content=b"{nope")).status_code == 400
        large = await web.put("/log-parts/1/0", json=body(b"x" * 3000))
        assert (large.status_code, "error" in large.json()) == (413, True)

        async def chunks():
            for _ in range(10):
                yield b"x" * 1000

        response = await web.put("/logs/1", content=chunks())
        assert response.status_code == 413
    assert await published(channel, 0) == []


async def test_each_of_many_parts_needs_its_own_token(web, channel, token_for, job_id):
    parts = [
        body(b"a", job_id=job_id, number=0, tok=token_for(job_id)),
        body(b"b", job_id=str(job_id + 1), number="1", tok=token_for(job_id + 1)),
        body(b"forged", job_id=job_id + 2, number=0, tok=token_for(job_id)),
        body(b"bare", job_id=job_id, number=1),
        body(b"c", job_id=job_id, number="last", tok=token_for(job_id), final=True),
    ]
    response = await web.post("/log-parts/multi", json=parts, headers=many(*parts))
    assert (response.status_code, response.content) == (204, b"")
    accepted = {(p["id"], p["number"], p["log"]) for p in await published(channel, 3)}
    assert accepted == {(job_id, 0, "YQ=="), (job_id + 1, 1, "Yg=="), (job_id, LAST, "Yw==")}
    metrics = (await web.get("/metrics")).text
    assert "logflume_web_parts_dropped_total" in metrics


async def test_many_parts_need_a_signature_and_are_accepted_all_or_none(
    web, channel, token_for, job_id
):
    good = body(b"a", job_id=job_id, number=0, tok=token_for(job_id))
    for sent in (b"[", json.dumps([good]).encode()):  # before the body is parsed
        response = await web.post("/log-parts/multi", content=sent)
        assert response.status_code == 403
    for wrong in ({"job_id": "x"}, {"number": -1}, {"encoding": "x"}, {"@type": "x"}):
        parts = [good, good | wrong]
        response = await web.post("/log-parts/multi", json=parts, headers=many(*parts))
        assert response.status_code == 400
        assert response.json()["error"].startswith("[1].")
    response = await web.post("/log-parts/multi", json=good, headers=many())
    assert response.status_code == 400
    assert await published(channel, 0) == []
    assert (await web.post("/log-parts/multi", json=[], headers=many())).status_code == 204


async def test_runners_tokens_need_a_public_key(settings, channel, pool):
    async with serving(settings, pool, jwt_public_key=None) as web:
        response = await web.put(
            "/log-parts/1/0", json=body(), headers={"Authorization": "Bearer x"}
        )
        assert (response.status_code, response.json()) == (500, {"error": "key is not set"})
        part = body(job_id=1, number=0, tok="x")
        response = await web.post("/log-parts/multi", json=[part], headers=many(part))
        assert (response.status_code, response.json()) == (500, {"error": "key is not set"})
        assert (await web.put("/log-parts/1/0", json=body())).status_code == 204


async def test_an_unconfirmed_part_is_not_answered_204(web, channel, job_id):
    """Without the queue the exchange would drop the part; the next request declares it again."""
    assert (await web.put(f"/log-parts/{job_id}/0", json=body())).status_code == 204
    await channel.queue_delete(contract.QUEUE)
    response = await web.put(f"/log-parts/{job_id}/1", json=body())
    assert response.status_code == 503
    assert response.headers["retry-after"]
    assert (await web.put(f"/log-parts/{job_id}/1", json=body())).status_code == 204
    assert [part["number"] for part in await published(channel, 1)] == [1]


async def test_reconnects_to_rabbitmq(web, channel, servers, name, job_id):
    assert (await web.put(f"/log-parts/{job_id}/0", json=body())).status_code == 204
    await close_connections(servers, name, "logflume web")
    async with asyncio.timeout(20):
        while (await web.put(f"/log-parts/{job_id}/1", json=body())).status_code != 204:
            await asyncio.sleep(0.05)
    assert {part["number"] for part in await published(channel, 2)} == {0, 1}


async def test_logs_can_be_read_while_rabbitmq_is_down(settings, pool, job_id):
    away = settings.amqp.model_copy(update={"url": type(settings.amqp.url)("amqp://127.0.0.1:1/")})
    async with serving(settings.model_copy(update={"amqp": away}), pool) as web:
        response = await web.put(f"/log-parts/{job_id}/0", json=body())
        assert (response.status_code, "retry-after" in response.headers) == (503, True)
        assert (await web.get(f"/logs/{job_id}")).status_code == 404


async def test_more_than_a_runner_sends_is_refused_at_once(web, channel):
    parts = [body(b"", job_id=n, number=0, tok="") for n in range(5001)]
    response = await web.post("/log-parts/multi", json=parts, headers=many())
    assert (response.status_code, "5000" in response.json()["error"]) == (413, True)
    large = await web.put("/log-parts/1/0", json=body(b"x" * (10 * 1024 * 1024)))
    assert large.status_code == 413
    assert await published(channel, 0) == []


@pytest.mark.parametrize("path", ["/log-parts/multi", "/logs/multi"])
async def test_a_deeply_nested_body_is_rejected(web, path):
    nested = b'[{"x":' + b"[" * 200_000
    response = await web.post(path, content=nested, headers=many() if "parts" in path else None)
    assert (response.status_code, "error" in response.json()) == (400, True)


async def test_many_parts_are_all_published(web, channel, token_for, job_id):
    token = token_for(job_id)
    parts = [body(b"", job_id=job_id, number=n, tok=token) for n in range(1200)]
    assert (await web.post("/log-parts/multi", json=parts, headers=many(*parts))).status_code == 204
    assert [part["number"] for part in await published(channel, 1200)] == [*range(1200)]


async def test_concurrent_parts_are_all_published(web, channel, job_id):
    responses = await asyncio.gather(
        *(web.put(f"/log-parts/{job_id}/{n}", json=body(b"%d" % n)) for n in range(60))
    )
    assert {response.status_code for response in responses} == {204}
    assert {part["number"] for part in await published(channel, 60)} == {*range(60)}
