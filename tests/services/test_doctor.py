"""`logflume doctor` names each thing that is broken, with advice that fits, and changes nothing."""

import json
from contextlib import AsyncExitStack
from datetime import timedelta
from urllib.parse import urlsplit

import aio_pika
import pytest
from aiormq.exceptions import ChannelNotFoundEntity
from pydantic import SecretStr
from temporalio.client import Client
from temporalio.worker import Worker

from activities.logs import ArchiveActivities, DatabaseActivities
from activities.sweep import SweepActivities
from activities.types import archive_queue
from db.maintenance import switch_off, switch_on
from logflume import contract
from logflume.archive.store import Archive
from logflume_cli.doctor import check_all
from logflume_cli.findings import Report, Row
from logflume_cli.services import make_workflows
from tests.support.parts import part, store_parts
from tests.support.services import draining, serving
from tests.support.waiting import until
from workflows.client.connection import connect_temporal, ensure_search_attributes
from workflows.lifecycle import LogLifecycle
from workflows.sweep import Sweep

STUCK = "LogPhase = 'stuck' AND ExecutionStatus = 'Running'"
STOPPED = {"queues", "drains", "worker: lifecycle", "worker: archive", "schedules", "web"}


@pytest.fixture
def settings(amqp_settings):
    return amqp_settings


@pytest.fixture
async def client(settings):
    client = await connect_temporal(settings.temporal)
    await ensure_search_attributes(client)
    # What other tests left behind in the namespace.
    async for run in client.list_workflows(STUCK):
        await client.get_workflow_handle(run.id).terminate()

    async def is_empty() -> bool:
        return not (await client.count_workflows(STUCK)).count

    await until(is_empty)
    yield client
    for name in ("sweep", "partition-maintenance"):
        await client.get_schedule_handle(name).delete()


def changed(settings, **groups):
    updates = {name: getattr(settings, name).model_copy(update=to) for name, to in groups.items()}
    return settings.model_copy(update=updates)


async def failures(settings, *, fix: bool = False) -> dict[str, Row]:
    report = Report()
    await check_all(settings, report, fix=fix)
    return {row.check: row for row in report.rows if not row.ok}


async def queue_exists(settings) -> bool:
    async with await aio_pika.connect(settings.amqp.url.get_secret_value()) as connection:
        channel = await connection.channel()
        try:
            await channel.declare_queue(contract.QUEUE, passive=True)
        except ChannelNotFoundEntity:
            return False
        return True


def with_host(url: SecretStr, user: str = "", path: str = "", port: int = 0) -> SecretStr:
    parts = urlsplit(url.get_secret_value())
    login = user or f"{parts.username}:{parts.password}"
    path = path or parts.path
    return SecretStr(f"{parts.scheme}://{login}@{parts.hostname}:{port or parts.port}{path}")


async def test_doctor_names_what_does_not_run_and_what_is_broken(
    settings, client, pool, name, job_id, numbers
):
    stuck, late, removed = job_id, next(numbers), next(numbers)
    stopped = await failures(settings)
    assert stopped.keys() - {"sweep"} == STOPPED
    assert "`logflume drain`" in stopped["drains"].fix
    assert "--queues archive" in stopped["worker: archive"].fix
    assert "does not exist" in stopped["schedules"].detail
    assert not await queue_exists(settings)
    assert (await failures(settings, fix=True)).keys() - {"sweep"} == STOPPED - {
        "queues",
        "schedules",
    }
    assert await queue_exists(settings)
    async with AsyncExitStack() as stack:
        workflows = make_workflows(client, settings)
        archive = ArchiveActivities(pool, Archive(settings.s3, 1))
        await stack.enter_async_context(
            Worker(client, task_queue=archive_queue(name), activities=archive.all)
        )

        async def only_archive() -> bool:
            found = {one for one in await failures(settings) if one.startswith("worker")}
            return found == {"worker: lifecycle"}

        await until(only_archive)
        database = DatabaseActivities(pool)
        await stack.enter_async_context(
            Worker(
                client,
                task_queue=name,
                workflows=[LogLifecycle, Sweep],
                activities=[
                    database.aggregate,
                    database.purge,
                    SweepActivities(pool, workflows).sweep_page,
                ],
            )
        )
        await stack.enter_async_context(draining(settings))
        secret = settings.web.link_secret
        web = await stack.enter_async_context(serving(settings, pool, link_secret=secret))
        settings = changed(settings, web={"url": str(web.base_url).rstrip("/")})
        await client.get_schedule_handle("sweep").trigger()

        async def is_well() -> bool:
            found = await failures(settings)
            return not found

        await until(is_well)
        await break_state(settings, client, pool, stuck, late, removed)

        async def all_found() -> bool:
            return len(await failures(settings)) >= 6

        await until(all_found)
        found = await failures(settings)
        assert {check: row.detail for check, row in found.items()} == {
            "dead letters": "1 messages are in the dead-letter queue.",
            "partitions": "None exists for the next interval.",
            "removed text": "It is still in the archive after 10 min.",
            "overdue logs": "In one phase for more than 30 min: 1 aggregating.",
            "schedules": "The schedule sweep is paused (by hand).",
            "stuck logs": "1 logs are stuck.",
        }
        assert "rejected list" in found["dead letters"].fix
        assert "--unpause" in found["schedules"].fix
        await client.get_schedule_handle("sweep").unpause()
        async with pool.acquire() as connection:
            await switch_on(connection, timedelta(minutes=1))
            other = changed(settings, sweep={"logs": 7})
            found = await failures(other)
            await switch_off(connection)
        assert "logflume maintenance off" in found["maintenance"].fix
        assert found["schedules"].fix == "Run `logflume schedules apply`."
        await client.get_workflow_handle(f"log-{stuck}").terminate()
        await servers_refuse(settings)
        await servers_are_away(settings)


async def break_state(settings, client: Client, pool, stuck: int, late: int, removed: int) -> None:
    await client.get_schedule_handle("sweep").pause(note="by hand")
    async with await aio_pika.connect(settings.amqp.url.get_secret_value()) as connection:
        channel = await connection.channel()
        exchange = await channel.get_exchange(contract.EXCHANGE)
        await exchange.publish(aio_pika.Message(b"no part"), contract.ROUTING_KEY)
    await pool.execute(
        "CREATE FUNCTION too_large() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE program_limit_exceeded USING MESSAGE = 'too large'; END $$;"
        "CREATE TRIGGER too_large BEFORE UPDATE ON logs FOR EACH ROW"
        " WHEN (NEW.content IS NOT NULL) EXECUTE FUNCTION too_large()"
    )
    await store_parts(pool, [part(one, 0, b"a", final=True) for one in (stuck, late, removed)])
    await make_workflows(client, settings).archive_again(stuck)
    await pool.execute(
        "UPDATE log_parts p SET created_at = now() - interval '40 min' FROM logs l"
        " WHERE l.id = p.log_id AND job_id = $1",
        late,
    )
    await pool.execute(
        "UPDATE logs SET archive_outdated = true,"
        " archive_outdated_at = now() - interval '10 min' WHERE job_id = $1",
        removed,
    )
    for row in await pool.fetch("SELECT name FROM log_partitions WHERE begin > now()"):
        await pool.execute(f"DROP TABLE {row['name']}")


async def servers_refuse(settings) -> None:
    wrong = SecretStr("wrong")
    database = settings.database
    found = await failures(
        changed(
            settings,
            amqp={"url": with_host(settings.amqp.url, user="logflume:wrong")},
            database={"url": with_host(database.url, path="/none")},
            temporal={"namespace": "none"},
            s3={"bucket": "none-of-ours"},
            web={"link_secret": SecretStr("another secret of thirty-two characters")},
        )
    )
    assert "LOGFLUME_AMQP__URL" in found["rabbitmq"].fix and "wrong" in found["rabbitmq"].fix
    assert found["postgres"].fix.startswith("Create the database")
    assert found["temporal"].fix.startswith("Create the namespace")
    assert found["archive"].fix.startswith("Create the bucket")
    assert "same LOGFLUME_WEB__LINK_SECRET" in found["web"].fix
    found = await failures(
        changed(
            settings,
            database={"url": with_host(database.url, user="logflume:wrong")},
            s3={"secret_key": wrong},
            web={"url": "", "auth_token": None},
        )
    )
    assert "wrong" in found["postgres"].fix and "SECRET_KEY" in found["archive"].fix
    assert "LOGFLUME_WEB__URL" in found["web"].fix
    assert "LOGFLUME_WEB__AUTH_TOKEN" in found["web token"].fix


async def servers_are_away(settings) -> None:
    pusher = {"app_id": "1", "key": "k", "secret": SecretStr("s"), "host": "127.0.0.1"}
    found = await failures(
        changed(
            settings,
            amqp={"url": with_host(settings.amqp.url, port=1)},
            database={"url": with_host(settings.database.url, port=1)},
            temporal={"address": "127.0.0.1:1"},
            s3={"endpoint": "http://127.0.0.1:1"},
            web={"url": "http://127.0.0.1:1"},
            pusher={**pusher, "port": 1, "tls": False},
        )
    )
    for check in ("rabbitmq", "postgres", "temporal", "archive", "pusher", "web"):
        assert found[check].fix.startswith("Is it running"), check
    assert found["drains"].detail == "not checked, because the check of rabbitmq failed"


def test_error_texts_do_not_break_the_table(capsys):
    report = Report()
    report.rows = [Row("a", ok=False, detail="[/red] [bold] \x1b[2J\x07", fix="do\tit")]
    report.print(as_json=False)
    shown = capsys.readouterr().out
    assert "[/red] [bold] \\x1b[2J\\x07" in shown and "do\\tit" in shown
    report.print(as_json=True)
    assert json.loads(capsys.readouterr().out)[0]["fix"] == "do\tit"
