"""PgBouncer in transaction mode, where each transaction may use another server process."""

import asyncio
import io
import os
import shutil
import socket
from contextlib import AsyncExitStack

import asyncpg
import pytest
from pydantic import SecretStr

from db.connect import allow_transfers, connect_directly, open_pool
from db.errors import FAILURES
from logflume.errors import ComponentError
from logflume_cli.devstack.components import accepts_connections
from logflume_cli.devstack.home import PROCESSES
from logflume_cli.devstack.runner import connect, play
from logflume_cli.devstack.samples import fleet
from tests.support.processes import LOGFLUME, environment, running
from tests.support.s3 import s3
from tests.support.services import as_process, serving
from tests.support.sse import reading
from tests.support.waiting import until

HOST = "127.0.0.1"
CONFIG = """
[databases]
{name} = host={host} port={port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {listen}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {users}
pool_mode = transaction
default_pool_size = 2
"""


@pytest.fixture
async def pooler(servers, name, tmp_path):
    """The URL of the test's database through PgBouncer, which has two connections to it."""
    with socket.create_server((HOST, 0)) as probe:
        port = probe.getsockname()[1]
    config, users = tmp_path / "pgbouncer.ini", tmp_path / "users.txt"
    password = servers.secrets["password"]
    passwords = {"logflume": password}
    passwords |= {f"app_{one}": servers.secrets[f"{one}_password"] for one in PROCESSES}
    users.write_text("".join(f'"{user}" "{secret}"\n' for user, secret in passwords.items()))
    target = {"name": name, "host": HOST, "port": servers.ports["postgres"]}
    config.write_text(CONFIG.format(listen=port, users=users, **target))
    program = shutil.which("pgbouncer")
    assert program, "pgbouncer is not installed; run bin/setup --pooler"
    # It refuses to run as root, and reads its files before it switches users.
    as_user = ["--user", "postgres"] if os.geteuid() == 0 else []
    process = await asyncio.create_subprocess_exec(program, "--quiet", *as_user, config)
    await until(lambda: accepts_connections(HOST, port))
    yield f"postgresql://logflume:{password}@{HOST}:{port}/{name}"
    process.kill()
    await process.wait()


@pytest.fixture
def settings(amqp_settings, pooler):
    direct = amqp_settings.database.url
    return with_database(amqp_settings, url=SecretStr(pooler), direct_url=direct)


def with_database(settings, **changed):
    return settings.model_copy(update={"database": settings.database.model_copy(update=changed)})


async def test_logs_pass_through_it_byte_for_byte(settings, pool, job_id, tmp_path, channel):
    logs = {job_id * 100 + n: content for n, (_, content) in enumerate(fleet(3, 6))}
    # On a busy machine two connections need longer than a test's usual gap to commit all batches.
    patient = settings.lifecycle.model_copy(update={"settle_seconds": 2.0, "gap_seconds": 10.0})
    settings = settings.model_copy(update={"lifecycle": patient})
    count = "SELECT count(*) FROM logs WHERE {}"
    async with AsyncExitStack() as stack:
        for name in ("drain", "worker"):
            process = running(settings, tmp_path / name, LOGFLUME, name, started=f"{name}_started")
            await stack.enter_async_context(process)
        web = await stack.enter_async_context(serving(settings, pool))

        async def read(job: int) -> bytes:
            return (await web.get(f"/logs/{job}/raw")).content

        async def follow(job: int) -> bytes:
            parts: dict[int, bytes] = {}
            async with reading(web, job) as reader:
                # A batch that is committed after a later one is sent after it.
                while (event := await reader.next()).name == "part":
                    assert event.data["number"] not in parts
                    parts[event.data["number"]] = event.content
            return b"".join(parts[number] for number in sorted(parts))

        async with await connect(settings.amqp.url.get_secret_value()) as connection:
            runner = await connection.channel(publisher_confirms=False)
            plays = [
                asyncio.create_task(play(runner, job, io.BytesIO(it), rate=len(it) + 1))
                for job, it in logs.items()
            ]
            await until(lambda: stored(pool, count.format("true"), len(logs)))
            followed = await asyncio.gather(*map(follow, logs))
            await asyncio.gather(*plays)
        assert dict(zip(logs, followed, strict=True)) == logs
        # Read repeatedly: from the parts, then the row, then the archive.
        async with asyncio.timeout(60):
            while not await stored(pool, count.format("purged_at IS NOT NULL"), len(logs)):
                await asyncio.gather(*map(read, logs))
        assert {job: await read(job) for job in logs} == logs
    store = s3(settings)
    for job, content in logs.items():
        archived = store.get_object(Bucket=settings.s3.bucket, Key=f"jobs/{job}/log.txt")
        assert archived["Body"].read() == content
    # Two concurrent transactions use both connections to Postgres: no statement remained there.
    async with pool.acquire() as one, pool.acquire() as two, one.transaction(), two.transaction():
        for each in (one, two):
            assert await each.fetch("SELECT name FROM pg_prepared_statements") == []


async def stored(pool, query: str, count: int) -> bool:
    return await pool.fetchval(query) == count


async def test_listeners_and_schema_deployment_use_the_direct_url(settings, tmp_path):
    lost = with_database(settings, url=SecretStr("postgresql://logflume@127.0.0.1:1/none"))
    variables = environment(lost, tmp_path / "settings")
    process = await asyncio.create_subprocess_exec(
        LOGFLUME, "db", "status", env=variables, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    assert b"Nothing to deploy" in output
    connection = await connect_directly(lost.database, "test")
    # Without limits a listener would wait for hours for a host that vanished.
    assert await connection.fetchval("SHOW tcp_keepalives_idle") == "10"
    await connection.close()


async def test_limits_set_by_role_hold_behind_it(settings, pool, database_url, name):
    """A frozen client holds no locks, and one that transfers data may be silent for longer."""
    owner = await asyncpg.connect(database_url)
    for limit, value in (("idle_in_transaction_session_timeout", "300ms"),
                         ("logflume.transfer_idle_timeout", "1h")):  # fmt: skip
        await owner.execute(f"ALTER ROLE app_worker IN DATABASE {name} SET {limit} = '{value}'")
    await owner.execute("INSERT INTO logs (job_id) VALUES (1)")
    async with await open_pool(as_process(settings, "worker").database, 1) as workers:
        async with workers.acquire() as worker, worker.transaction():
            await allow_transfers(worker)
            shown = await worker.fetchval("SHOW idle_in_transaction_session_timeout")
            assert shown == "1h"
        worker = await workers.acquire()
        await worker.execute("BEGIN")
        await worker.execute("SELECT FROM logs FOR UPDATE")
        async with asyncio.timeout(30):
            await owner.execute("UPDATE logs SET updated_at = now()")  # waits for the lock
        with pytest.raises(FAILURES):
            await worker.execute("COMMIT")
        await workers.release(worker)
    await owner.close()


async def test_a_pooler_without_a_direct_url_is_an_error(settings, pooler):
    indirect = with_database(settings, direct_url=None)
    with pytest.raises(ComponentError, match=r"is a pooler: set LOGFLUME_DATABASE__DIRECT_URL"):
        await open_pool(indirect.database)
    doubled = with_database(settings, direct_url=SecretStr(pooler))
    with pytest.raises(ComponentError, match=r"is a pooler, too"):
        await connect_directly(doubled.database, "test")
