"""A frozen client of Postgres does not stop the others."""

import os
import signal
import socket

import asyncpg
import psutil
import pytest
import structlog

from db.connect import allow_transfers, open_pool
from db.parts import store_batch
from drain import flush
from tests.support.broker import message, publish
from tests.support.parts import count_parts, part, stored_content
from tests.support.processes import LOGFLUME, running
from tests.support.services import draining
from tests.support.waiting import until

pytestmark = pytest.mark.timeout(60)
LOCK_ATTEMPTS = "SELECT FROM log_attempts FOR UPDATE"
WAITS = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND cardinality(pg_blocking_pids(pid)) > 0
"""


def limited(settings, **fields):
    database = settings.database.model_copy(update=fields)
    return settings.model_copy(update={"database": database})


async def equals(awaitable, value) -> bool:
    return await awaitable == value


async def test_a_flush_of_a_frozen_drain_is_completed_by_postgres(
    amqp_settings, channel, pool, job_id, tmp_path
):
    """The drain is frozen while Postgres opens its attempts; another drain stores more parts."""
    async with pool.acquire() as connection:
        await store_batch(connection, [part(job_id, 0, b"0,", attempt="u")])
    async with running(
        amqp_settings, tmp_path / "drain", LOGFLUME, "drain", started="drain_started"
    ) as process:
        async with pool.acquire() as locker, locker.transaction():
            await locker.execute(LOCK_ATTEMPTS)
            # An earlier begin, so that the flush changes the attempt and locks its row.
            await publish(channel, message(job_id, 1, "1,"), timestamp=1)
            await until(lambda: equals(pool.fetchval(WAITS), 1))
            process.send_signal(signal.SIGSTOP)
        try:
            async with draining(amqp_settings) as drain:
                await until(lambda: is_consuming(drain))
                # RabbitMQ delivers some of them to the frozen drain.
                more = [message(job_id, n, f"{n},") for n in range(2, 12)]
                await publish(channel, *more, timestamp=0)
                await until(lambda: has_more_than(pool, 2))
        finally:
            process.send_signal(signal.SIGCONT)
        await until(lambda: equals(count_parts(pool), 12))
    assert await stored_content(pool, job_id) == b"0,1,2,3,4,5,6,7,8,9,10,11,"


async def is_consuming(drain) -> bool:
    return drain._is_consuming


async def has_more_than(pool, parts: int) -> bool:
    return await count_parts(pool) > parts


async def test_a_frozen_transaction_ends_and_is_named(
    amqp_settings, channel, pool, job_id, monkeypatch
):
    """As of a worker or a web that is stopped between two statements."""
    monkeypatch.setattr(flush, "LOCK_REPORT_SECONDS", 0.2)
    await publish(channel, message(job_id, 0, "0,"))
    async with (
        await open_pool(
            limited(amqp_settings, idle_transaction_seconds=3).database, 1, "logflume frozen"
        ) as frozen,
        draining(amqp_settings),
    ):
        await until(lambda: equals(count_parts(pool), 1))
        async with frozen.acquire() as holder:
            held = holder.transaction()
            await held.start()
            await holder.execute(LOCK_ATTEMPTS)
            with structlog.testing.capture_logs() as lines:
                await publish(channel, message(job_id, 1, "1,"))
                await until(lambda: equals(count_parts(pool), 2))
            with pytest.raises((asyncpg.InterfaceError, asyncpg.InternalClientError)):
                await holder.execute("SELECT 1")
    waits = [line for line in lines if line["event"] == "flush_waits_for_lock"]
    assert waits and "log_attempts held by logflume frozen" in str(waits[0]["locks"])


async def test_a_flush_is_one_statement(pool, job_id):
    statements = []
    async with pool.acquire() as connection:
        await store_batch(connection, [part(job_id, 0, b"a")])  # the client reads types once
        with connection.query_logger(lambda query: statements.append(query.query)):
            await store_batch(connection, [part(job_id, 0, b"a"), part(job_id, 1, b"b")])
    assert len(statements) == 1


def tcp_timeout(connection) -> int:
    """The TCP_USER_TIMEOUT of an open connection of this process in ms; 0: none."""
    if connection.type != socket.SOCK_STREAM or not connection.raddr:
        return 0
    with socket.socket(fileno=os.dup(connection.fd)) as end:
        return end.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)


async def test_sessions_have_limits_at_both_ends(settings, pool):
    names = ["idle_in_transaction_session_timeout", "tcp_user_timeout", "tcp_keepalives_idle"]
    limits = limited(settings, idle_transaction_seconds=7, unanswered_seconds=30).database
    async with await open_pool(limits, 1) as own, own.acquire() as connection:
        shown = [await connection.fetchval(f"SHOW {name}") for name in names]
        sockets = [end for end in map(tcp_timeout, psutil.Process().net_connections()) if end]
        assert 30_000 in sockets
        async with connection.transaction():
            await allow_transfers(connection)
            shown.append(await connection.fetchval(f"SHOW {names[0]}"))
        shown.append(await connection.fetchval(f"SHOW {names[0]}"))
    assert shown == ["7s", "30000", "15", "10min", "7s"]
