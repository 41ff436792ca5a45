"""Pusher webhooks and the authorization of private channels."""

import json
import time

import pytest
from pydantic import SecretStr

from logflume.settings.servers import PusherSettings
from tests.support.pusher import KEY, SECRET, signature
from tests.support.services import TOKEN, serving

AUTHORIZED = {"Authorization": f"token {TOKEN}"}
MARKED = "SELECT job_id FROM watched_logs WHERE way = 'pusher' AND until > now() + '5:59'"


@pytest.fixture
def settings(settings):
    pusher = PusherSettings(app_id="1", key=KEY, secret=SecretStr(SECRET))
    return settings.model_copy(update={"pusher": pusher})


@pytest.fixture
async def web(web):
    del web.headers["Authorization"]
    return web


async def webhook(web, *events, **headers):
    """Send a signed webhook like Pusher does."""
    return await send(web, body(*events), **headers)


def body(*events, age: float = 0) -> bytes:
    listed = [{"name": name, "channel": channel} for name, channel in events]
    return json.dumps({"time_ms": int((time.time() - age) * 1000), "events": listed}).encode()


async def send(web, text: bytes, key: str = KEY, signed: str | bytes | None = None):
    headers = {"X-Pusher-Key": key, "X-Pusher-Signature": signed or signature(text)}
    return await web.post("/pusher/existence", content=text, headers=headers)


async def watched(pool) -> set[int]:
    return {row[0] for row in await pool.fetch(MARKED)}


async def test_channels_are_marked_for_six_hours_or_until_vacated(web, pool):
    response = await webhook(
        web, ("channel_occupied", "job-1"), ("channel_occupied", "private-job-2")
    )
    assert (response.status_code, response.content) == (204, b"")
    assert await watched(pool) == {1, 2}
    await webhook(web, ("channel_vacated", "job-1"), ("channel_occupied", f"job-{2**63 - 1}"))
    assert await watched(pool) == {2, 2**63 - 1}
    await webhook(web, ("channel_occupied", "job-3"), ("channel_vacated", "job-3"))
    assert await watched(pool) == {2, 2**63 - 1}


async def test_other_channels_and_events_are_ignored(web, pool):
    channels = ("job-", "job-x", "job-1x", "job-01", "repo-1", "presence-job-1", f"job-{2**63}",
                "job--1", "job-1\n", "job-\u0661", "")  # fmt: skip
    response = await webhook(
        web, *(("channel_occupied", name) for name in channels), ("member_added", "job-4")
    )
    assert response.status_code == 204
    assert await watched(pool) == set()


async def test_public_channels_do_not_affect_private_ones(settings, pool):
    pusher = settings.pusher.model_copy(update={"secure": True})
    async with serving(settings.model_copy(update={"pusher": pusher}), pool) as web:
        await webhook(web, ("channel_occupied", "private-job-1"), ("channel_occupied", "job-2"))
        await webhook(web, ("channel_vacated", "job-1"))
    assert await watched(pool) == {1}


async def test_invalid_signatures_are_rejected(web, pool):
    good = body(("channel_occupied", "job-1"))
    responses = [
        await send(web, good, signed="0" * 64),
        await send(web, good, signed=signature(good, "other")),
        await send(web, good, signed=signature(good + b" ")),
        await send(web, good, signed="é".encode()),
        await send(web, good, key="other"),
        await send(web, b"\xff"),
        await send(web, b"{"),
        await send(web, body(("channel_occupied", "job-1"), age=400)),
        await web.post("/pusher/existence", content=good),
    ]
    for response in responses:
        assert response.status_code == 401
        assert response.json()["error"]
    assert await watched(pool) == set()


@pytest.mark.parametrize(
    "template",
    [
        "[]", "1", "null", '"x"', '{"time_ms": "now", "events": []}', '{"time_ms": 1e999}',
        '{"time_ms": %d}', '{"time_ms": %d, "events": 7}', '{"time_ms": %d, "events": [7]}',
        '{"time_ms": %d, "events": [{"name": "channel_occupied", "channel": 1}]}',
        '{"time_ms": %d, "events": ["\\ud83d"]}', '{"time_ms": ' + "9" * 400 + "}", "[" * 100_000,
    ],
)  # fmt: skip
async def test_a_signed_body_that_is_not_a_webhook_is_rejected(web, template):
    text = (template % (time.time() * 1000) if "%d" in template else template).encode()
    response = await send(web, text)
    assert response.status_code in (400, 401)
    assert response.json()["error"]


async def test_without_an_app_the_error_says_so(settings, pool):
    async with serving(settings.model_copy(update={"pusher": PusherSettings()}), pool) as web:
        existence = await webhook(web, ("channel_occupied", "job-1"))
        form = {"socket_id": "1.1", "channel_name": "private-job-1"}
        auth = await web.post("/pusher/auth", data=form, headers=AUTHORIZED)
    for response in (existence, auth):
        assert (response.status_code, response.json()) == (500, {"error": "pusher is not set"})


async def test_a_subscription_is_signed_with_the_token(web):
    form = {"socket_id": "123.456", "channel_name": "private-job-42"}
    response = await web.post("/pusher/auth", data=form, headers=AUTHORIZED)
    signed = signature(b"123.456:private-job-42")
    assert (response.status_code, response.json()) == (200, {"auth": f"{KEY}:{signed}"})
    assert (await web.post("/pusher/auth", data=form)).status_code == 403


@pytest.mark.parametrize(
    ("form", "status"),
    [
        ({"socket_id": "1.1", "channel_name": "job-42"}, 403),
        ({"socket_id": "1.1", "channel_name": "presence-job-42"}, 403),
        ({"socket_id": "1.1", "channel_name": "private-job-42:x"}, 403),
        ({"socket_id": "1.1:private-job-1", "channel_name": "private-job-42"}, 400),
        ({"socket_id": "", "channel_name": "private-job-42"}, 400),
        ({"channel_name": "private-job-42"}, 400),
        ({"socket_id": ["1.1", "1.2"], "channel_name": "private-job-42"}, 400),
        ({}, 400),
    ],
)
async def test_other_subscriptions_are_rejected(web, form, status):
    response = await web.post("/pusher/auth", data=form, headers=AUTHORIZED)
    assert response.status_code == status
    assert response.json().keys() == {"error"}
