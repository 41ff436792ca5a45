"""A drain stops consuming when too many recent messages are invalid, and resumes."""

import asyncio
import socket

import httpx
import pytest
from click.testing import CliRunner
from prometheus_client import REGISTRY

from drain.drain import Drain
from logflume import contract
from logflume.errors import ComponentError
from logflume.observability.health import check_all
from logflume.settings import Settings
from logflume_cli.rejected import rejected
from tests.support.broker import message, publish, ready_messages
from tests.support.parts import count_parts, stored_content
from tests.support.processes import LOGFLUME, running
from tests.support.services import draining
from tests.support.waiting import until

WINDOW = 20


def limited(settings: Settings, **changes: float) -> Settings:
    """One batch fills the window."""
    changes = {"invalid_window": WINDOW, "batch_parts": WINDOW, "flushes": 1, **changes}
    return settings.model_copy(update={"drain": settings.drain.model_copy(update=changes)})


@pytest.fixture
def resume(amqp_settings, monkeypatch):
    """Run `logflume rejected resume`; its event loop needs a thread of its own."""
    monkeypatch.setenv("LOGFLUME_AMQP__URL", amqp_settings.amqp.url.get_secret_value())

    async def resume() -> str:
        return (await asyncio.to_thread(CliRunner().invoke, rejected, "resume")).stdout

    return resume


async def is_suspended(drain: Drain) -> bool:
    try:
        await drain.check_not_suspended()
    except ComponentError:
        return True
    return False


async def has_parts(pool, count: int) -> bool:
    return await count_parts(pool) == count


async def dead_letters(channel) -> int:
    queue = await channel.declare_queue(contract.DEAD_LETTER_QUEUE, durable=True)
    return queue.declaration_result.message_count


async def test_it_suspends_consuming_and_resumes_on_command(
    amqp_settings, channel, pool, job_id, resume
):
    await publish(channel, *[b"invalid"] * WINDOW, *(message(job_id, n, "x") for n in range(100)))
    async with draining(limited(amqp_settings)) as drain:
        await until(lambda: is_suspended(drain))
        # What it had received beyond the first batch is in the queue again.
        assert (await ready_messages(channel), await dead_letters(channel)) == (100, WINDOW)
        assert await count_parts(pool) == 0
        assert REGISTRY.get_sample_value("logflume_drain_suspended") == 1
        assert REGISTRY.get_sample_value("logflume_drain_consuming") == 0
        ready = await check_all({"dead_letter_limit": drain.check_not_suspended})
        assert "20 of the last 20 messages are invalid" in ready["dead_letter_limit"]
        await until(lambda: answers(drain, (100, 0, WINDOW)))
        assert await resume() == "suspended drains resume\n"
        await until(lambda: has_parts(pool, 100))
        assert not await is_suspended(drain)
        assert await resume() == "no drain is suspended\n"
    assert await stored_content(pool, job_id) == b"x" * 100
    assert (await ready_messages(channel), await dead_letters(channel)) == (0, WINDOW)


async def answers(drain: Drain, expected: tuple[int, int, int]) -> bool:
    """Whether the queues can be observed, which needs the suspension's own connection."""
    try:
        return await drain.queue() == expected
    except ComponentError:
        return False


async def test_readiness_names_the_limit_and_the_drain_resumes_by_itself(
    amqp_settings, channel, pool, job_id, tmp_path
):
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    telemetry = amqp_settings.telemetry.model_copy(update={"port": port})
    settings = limited(amqp_settings, suspend_seconds=5)
    settings = settings.model_copy(update={"telemetry": telemetry})
    await publish(channel, *[b"invalid"] * WINDOW, *(message(job_id, n, "x") for n in range(9)))
    async with (
        running(settings, tmp_path / "drain", LOGFLUME, "drain", started="drain_suspended"),
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client,
    ):
        response = await client.get("/health/ready")
        assert response.status_code == 503
        reason = response.json()["dependencies"]["dead_letter_limit"]
        assert reason.startswith("20 of the last 20 messages are invalid: consuming is suspended")
        assert await ready_messages(channel) == 9
        await until(lambda: has_parts(pool, 9))
        response = await client.get("/health/ready")
        assert (response.status_code, response.json()["dependencies"]["dead_letter_limit"]) == (
            200,
            "ok",
        )
    assert (tmp_path / "drain.log").read_text().count('"level": "error"') == 1


async def test_one_command_resumes_all_drains(amqp_settings, channel, resume):
    settings = limited(amqp_settings, prefetch=WINDOW)
    async with draining(settings) as one, draining(settings) as other:
        await publish(channel, *[b"invalid"] * 10 * WINDOW)
        await until(lambda: is_suspended(one))
        await until(lambda: is_suspended(other))
        await until(lambda: are_observable(one, other))
        await (await channel.get_queue(contract.QUEUE)).purge()
        await resume()
        await until(lambda: has_consumers(channel, 2))


async def are_observable(*drains: Drain) -> bool:
    try:
        return bool([await drain.queue() for drain in drains])
    except ComponentError:
        return False


async def has_consumers(channel, count: int) -> bool:
    queue = await channel.declare_queue(contract.QUEUE, durable=True)
    return queue.declaration_result.consumer_count == count


async def test_few_invalid_messages_among_many_do_not_suspend_it(
    amqp_settings, channel, pool, job_id
):
    for n in range(0, 200, 2):
        await publish(channel, message(job_id, n, "x"), message(job_id, n + 1, "y"), b"invalid")
    async with draining(limited(amqp_settings)) as drain:
        await until(lambda: has_parts(pool, 200))
        assert not await is_suspended(drain)
    assert (await ready_messages(channel), await dead_letters(channel)) == (0, 100)


async def test_a_suspended_drain_stops_before_the_set_time(amqp_settings, channel):
    await publish(channel, *[b"invalid"] * WINDOW)
    async with draining(limited(amqp_settings)) as drain:
        await until(lambda: is_suspended(drain))
