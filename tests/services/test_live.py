"""Parts from RabbitMQ to a subscriber through a real Pusher server."""

import os
import signal
from collections.abc import AsyncIterator, Callable

import aio_pika
import pytest
from pydantic import SecretStr

from db.parts import store_batch
from drain.live.forwarder import Forwarder
from drain.live.metrics import EVENTS
from logflume import amqp, contract
from logflume.domain import LAST
from logflume.errors import LogflumeError
from logflume.pusher import make_sender, trigger
from logflume.settings import Settings, load_settings
from logflume.settings.servers import PusherSettings
from logflume_cli.devstack.stack import LocalStack
from logflume_cli.doctor import _pusher
from logflume_cli.findings import advice
from tests.support.broker import message
from tests.support.parts import content, part
from tests.support.pusher import subscriber
from tests.support.services import draining, serving
from tests.support.waiting import until


@pytest.fixture
def settings(amqp_settings: Settings, pusher: LocalStack) -> Settings:
    """The test's own vhost and the Pusher server, without the existence check."""
    live = load_settings(stack={"data_dir": pusher.home.data_dir}).pusher
    live = live.model_copy(update={"check_existence": False})
    return amqp_settings.model_copy(update={"pusher": live})


def changed(settings: Settings, **fields) -> Settings:
    return settings.model_copy(update={"pusher": settings.pusher.model_copy(update=fields)})


def forwarder(settings: PusherSettings) -> Forwarder:
    return Forwarder(make_sender(settings), settings)


@pytest.fixture
async def publish(settings) -> AsyncIterator[Callable]:
    """A function that publishes a part like a runner."""
    async with await aio_pika.connect(settings.amqp.url.get_secret_value()) as connection:
        exchange = await amqp.declare(await connection.channel())

        async def publish(job_id: int, number: int | str, log: str, **fields) -> None:
            body = message(job_id, number, log, **fields)
            await exchange.publish(aio_pika.Message(body), contract.ROUTING_KEY)

        yield publish


def counted(result: str) -> float:
    return EVENTS.labels(result)._value.get()


async def stored(pool, count: int) -> None:
    async def met() -> bool:
        return await pool.fetchval("SELECT count(*) FROM log_parts") == count

    await until(met)


async def watched(pool, job_id: int, *, expected: bool) -> None:
    async def met() -> bool:
        rows = await pool.fetchval("SELECT count(*) FROM watched_logs WHERE job_id = $1", job_id)
        return bool(rows) is expected

    await until(met)


async def test_parts_arrive_live_and_in_order(settings, publish, job_id):
    async with subscriber(settings.pusher) as reader, draining(settings):
        await reader.subscribe(f"job-{job_id}")
        for number in range(50):
            await publish(job_id, number, f"{number} caf\u00e9\0\n")
        await publish(job_id, "last", "the end", final=True)
        assert await reader.parts(51) == [
            *(
                {"id": job_id, "_log": f"{n} caf\u00e9\0\n", "number": n, "final": False}
                for n in range(50)
            ),
            {"id": job_id, "_log": "the end", "number": LAST, "final": True},
        ]


async def test_a_batch_that_commits_before_an_earlier_one_is_sent_after_it(
    settings, publish, pool, numbers
):
    blocked, job = next(numbers), next(numbers)
    settings = settings.model_copy(
        update={"drain": settings.drain.model_copy(update={"batch_seconds": 0.2})}
    )
    async with (
        subscriber(settings.pusher) as reader,
        draining(settings),
        pool.acquire() as connection,
    ):
        await reader.subscribe(f"job-{job}")
        await publish(blocked, 0, "both logs exist")
        await publish(job, 0, "zero")
        await stored(pool, 2)
        async with connection.transaction():
            await connection.execute("SELECT 1 FROM logs WHERE job_id = $1 FOR UPDATE", blocked)
            await publish(job, 1, "one")
            await publish(blocked, 0, "waits for the lock", uuid="other")
            await until(lambda: waits_for_lock(pool))
            await publish(job, 2, "two")
            await stored(pool, 3)
        assert [one["_log"] for one in await reader.parts(3)] == ["zero", "one", "two"]


async def waits_for_lock(pool) -> bool:
    return await pool.fetchval(
        "SELECT count(*) > 0 FROM pg_stat_activity "
        "WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )


async def test_a_part_of_100_kb_arrives_as_several_events(settings, publish, job_id):
    text = "plain " * 9000 + "\0" * 3000 + "🎉" * 3000 + "end"
    async with subscriber(settings.pusher) as reader, draining(settings):
        await reader.subscribe(f"job-{job_id}")
        await publish(job_id, 3, "before")
        await publish(job_id, 4, text, final=True)
        pieces = []
        assert (await reader.parts(1))[0]["number"] == 3
        while not (pieces and pieces[-1]["final"]):
            pieces += await reader.parts(1)
    assert len(pieces) > 10
    assert "".join(piece["_log"] for piece in pieces) == text
    assert [piece["number"] for piece in pieces] == [4 + k * 10**6 for k in range(len(pieces))]


async def test_nothing_is_sent_until_the_webhook_reports_a_subscriber(
    settings, publish, pool, pusher, job_id
):
    settings = changed(settings, check_existence=True)
    channel, sent = f"job-{job_id}", counted("sent")
    async with (
        serving(settings, pool, port=pusher.home.ports["web"]),
        subscriber(settings.pusher) as reader,
        draining(settings),
    ):
        await publish(job_id, 0, "unwatched")
        await stored(pool, 1)
        await reader.subscribe(channel)
        await watched(pool, job_id, expected=True)
        await publish(job_id, 1, "seen")
        assert [one["_log"] for one in await reader.parts(1)] == ["seen"]
        await reader.unsubscribe(channel)
        await watched(pool, job_id, expected=False)
        await publish(job_id, 2, "unwatched again")
        await stored(pool, 3)
    assert counted("sent") == sent + 1  # the drain has stopped, so its backlog is empty


async def test_the_web_authorizes_subscribers_of_a_private_channel(settings, publish, pool, job_id):
    settings = changed(settings, secure=True)
    channel = f"private-job-{job_id}"
    async with (
        serving(settings, pool) as web,
        subscriber(settings.pusher) as reader,
        draining(settings),
    ):
        form = {"socket_id": reader.socket_id, "channel_name": channel}
        answer = await web.post("/pusher/auth", data=form)
        await reader.subscribe(channel, auth=answer.json()["auth"])
        await publish(job_id, 0, "private")
        assert [one["_log"] for one in await reader.parts(1)] == ["private"]


async def test_stale_and_superseded_parts_are_not_sent_but_last_parts_are(settings, pool, job_id):
    live = forwarder(settings.pusher)

    async def commit(*parts) -> None:
        async with pool.acquire() as connection:
            live.submit(await store_batch(connection, parts))

    async with subscriber(settings.pusher) as reader:
        await reader.subscribe(f"job-{job_id}")
        await commit(part(job_id, 0, b"closed", attempt="stale"))
        await pool.execute("UPDATE log_attempts SET closed_at = now()")
        await commit(part(job_id, 0, b"first", attempt="old"))
        await commit(part(job_id, 0, b"second", attempt="new"))
        await commit(
            part(job_id, 1, b"stale", attempt="stale"),
            part(job_id, LAST, b"stale too", attempt="stale", final=True),
            part(job_id, 1, b"superseded", attempt="old"),
            part(job_id, LAST, b"last", attempt="old"),
            part(job_id, 1, b"third", attempt="new", final=True),
        )
        seen = await reader.parts(5)
        assert [one["_log"] for one in seen] == ["closed", "first", "second", "last", "third"]
        await live.close(2)


@pytest.fixture
def hanging(pusher: LocalStack):
    """The Pusher server accepts connections and never responds."""
    (pid,) = [item.pid for item in pusher.status() if item.name == "pusher"]
    assert pid
    os.kill(pid, signal.SIGSTOP)
    yield
    os.kill(pid, signal.SIGCONT)


async def test_while_pusher_hangs_parts_are_stored_and_excess_events_dropped(
    settings, publish, pool, job_id, hanging
):
    settings = changed(settings, queue_events=20, senders=2)
    dropped = counted("dropped")
    async with draining(settings):
        for number in range(200):
            await publish(job_id, number, f"{number},")
        await stored(pool, 200)
        async with pool.acquire() as connection:
            whole = await content(connection, job_id)
        # One sender has the job: a backlog of 10 events and the batch in flight.
        assert counted("dropped") - dropped >= 200 - 10 - 10
    assert whole == "".join(f"{number}," for number in range(200)).encode()
    assert counted("dropped") - dropped == 200  # the rest at shutdown


async def test_while_pusher_is_down_parts_are_stored_and_failures_counted(
    settings, publish, pool, job_id
):
    settings = changed(settings, port=1)
    failed, sent = counted("failed"), counted("sent")
    async with draining(settings):
        for number in range(20):
            await publish(job_id, number, "x")
        await stored(pool, 20)

        async def met() -> bool:
            return counted("failed") > failed

        await until(met)
    assert counted("sent") == sent


async def test_senders_continue_after_a_failure(settings, pool, job_id, pusher):
    """Failed events are lost; later ones arrive once Pusher is back."""
    live = forwarder(settings.pusher)
    failed = counted("failed")
    await pusher.down(["pusher"])
    try:
        async with pool.acquire() as connection:
            live.submit(await store_batch(connection, [part(job_id, 0, b"lost")]))

        async def met() -> bool:
            return counted("failed") == failed + 1

        await until(met)
    finally:
        await pusher.up(["pusher"])
    async with subscriber(settings.pusher) as reader:
        await reader.subscribe(f"job-{job_id}")
        async with pool.acquire() as connection:
            live.submit(await store_batch(connection, [part(job_id, 1, b"here")]))
        assert [one["_log"] for one in await reader.parts(1)] == ["here"]
    await live.close(2)


async def test_closing_sends_the_backlog(settings, pool, job_id):
    live = forwarder(settings.pusher)
    sent = counted("sent")
    async with pool.acquire() as connection:
        placed = await store_batch(connection, [part(job_id, n, b"x") for n in range(500)])
    live.submit(placed)
    await live.close(10)
    assert counted("sent") - sent == 500


async def test_a_refusal_is_an_error(settings):
    sender = make_sender(settings.pusher)
    event = {"channel": "job-1", "name": "job:log", "data": "{}"}
    with pytest.raises(Exception, match="Cannot batch-send more than 10"):
        await trigger(sender, [dict(event) for _ in range(11)])
    await sender.http.close()


async def test_doctor_checks_the_app(settings):
    assert await _pusher(settings) == f"app {settings.pusher.app_id}"
    with pytest.raises(LogflumeError) as failed:
        await _pusher(changed(settings, secret=SecretStr("wrong")))
    assert "orrect LOGFLUME_PUSHER__" in advice(failed.value, "LOGFLUME_PUSHER__*")
