"""Connections to Postgres."""

import asyncio
import os
import socket
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import asyncpg
from asyncpg.cursor import Cursor
from asyncpg.pool import PoolConnectionProxy
from pydantic import SecretStr

from db.errors import FAILURES
from logflume.errors import ComponentError
from logflume.settings.servers import DatabaseSettings

# A connection, or one borrowed from a pool.
Connection = asyncpg.Connection | PoolConnectionProxy

# The content rule takes longer to plan than to run, the more so with many partitions. Generic plans
# are safe: every query uses the primary key once sequential scans are priced out. Compiling a plan
# would take longer than running it. docs/decisions/0001-the-content-rule-is-sql.md
PLANS = {"plan_cache_mode": "force_generic_plan", "seq_page_cost": "1000", "jit": "off"}
# Skips settings this server does not have: travis-logs may run on an older Postgres.
SET_ALL = """
SELECT set_config(name, value, false) FROM unnest($1::text[], $2::text[]) p (name, value)
WHERE EXISTS (SELECT FROM pg_settings s WHERE s.name = p.name) OR name LIKE 'logflume.%'
"""
# A setting of the session, so that a role can set it where a pooler hides the session.
TRANSFER_IDLE = "logflume.transfer_idle_timeout"
ALLOW_TRANSFERS = f"""
SELECT set_config('idle_in_transaction_session_timeout',
    coalesce(nullif(current_setting('{TRANSFER_IDLE}', true), ''), '10min'), true)
"""
# The wait of one session of this process for a lock, and who holds it.
LOCK_WAITS = """
SELECT (
        SELECT coalesce(relation::regclass::text, locktype) FROM pg_locks
        WHERE pid = w.pid AND (locktype = 'tuple' OR NOT granted)
        ORDER BY locktype = 'tuple' DESC LIMIT 1
    ) AS lock,
    b.pid, b.usename, b.application_name
FROM pg_stat_activity w, unnest(pg_blocking_pids(w.pid)) p (pid)
JOIN pg_stat_activity b ON b.pid = p.pid
WHERE w.application_name = $1 AND w.datname = current_database() AND w.wait_event_type = 'Lock'
"""
CONNECT_SECONDS = 10
# One per process; `db/deploy/roles.sql` grants their privileges.
Role = Literal["logflume_drain", "logflume_worker", "logflume_web"]
HAS_ROLE = """
SELECT pg_has_role($1, 'USAGE') OR pg_has_role(relowner, 'USAGE')
FROM pg_class WHERE oid = 'log_parts'::regclass
"""
CLOSE_SECONDS = 5
# Postgres 14 and later report these of each session, and when they change.
READ_ONLY = ("in_hot_standby", "default_transaction_read_only")
IN_RECOVERY = "SELECT pg_is_in_recovery()"
IS_READ_ONLY = "SELECT current_setting('transaction_read_only') = 'on'"


class _Unreset(asyncpg.Connection):
    """A connection that returns to its pool without a reset, which would cost a round trip.

    There is nothing to reset: settings are set for a transaction or, as `PLANS`, permanently, and
    listeners have connections of their own.
    """

    _was_read_only = False

    def get_reset_query(self) -> str:
        return ""

    async def _execute(self, *args: Any, **options: Any) -> Any:
        try:
            return await super()._execute(*args, **options)  # type: ignore[misc]
        except asyncpg.ReadOnlySQLTransactionError:
            self._was_read_only = True
            raise

    async def reset(self, *, timeout: float | None = None) -> None:  # noqa: ASYNC109 - as inherited
        """Terminate a connection whose session cannot write.

        It would stay read-only when the database is writable again, or on a standby when the
        address leads to the primary again.
        """
        await super().reset(timeout=timeout)
        reported = self.get_settings()
        if self._was_read_only or any(getattr(reported, name, "off") == "on" for name in READ_ONLY):
            self.terminate()


class _Unprepared(_Unreset):
    """A connection through a pooler, where each transaction may use another server process.

    A named statement exists only in the process that prepared it. With its cache disabled, asyncpg
    sends unnamed statements together with their use, except for cursors, which it still names.
    """

    async def cursor(self, query: str, *args: object) -> Cursor:  # type: ignore[override]
        statement = await self.prepare(query, name="")
        return await statement.cursor(*args)


async def open_pool(
    settings: DatabaseSettings, connections: int | None = None, name: str = "logflume"
) -> asyncpg.Pool:
    """Open a pool of at most `connections` (the setting where None), shown under this name.

    Raises:
        ComponentError: Postgres cannot be reached, rejects the login, or is behind a pooler that
            the settings do not declare.
    """
    most = connections or settings.connections
    pooled = settings.direct_url is not None
    try:
        pool = await asyncpg.create_pool(
            settings.url.get_secret_value(),
            min_size=1,
            max_size=most,
            connection_class=_Unprepared if pooled else _Unreset,
            statement_cache_size=0 if pooled else 100,
            timeout=CONNECT_SECONDS,
            server_settings={"application_name": session_name(name), "timezone": "UTC"},
            init=partial(_prepare, settings, {} if pooled else PLANS),
        )
        async with pool.acquire() as connection:
            if pooled or await _is_direct(connection):
                return pool
    except FAILURES as error:
        raise ComponentError(f"{describe(settings)}: {_one_line(error)}") from error
    pool.terminate()
    raise ComponentError(
        f"{describe(settings)} is a pooler: set LOGFLUME_DATABASE__DIRECT_URL to the address of "
        "Postgres itself; for an import, pass that address with --from"
    )


async def _prepare(
    settings: DatabaseSettings, plans: Mapping[str, str], connection: asyncpg.Connection
) -> None:
    """Set the limits of a new session, and its plans if any; a pooler has its own."""
    seconds = settings.unanswered_seconds
    if seconds:
        _limit_socket(connection, seconds)
    if not plans:
        return
    values = dict(plans) | {
        "idle_in_transaction_session_timeout": _ms(settings.idle_transaction_seconds),
        TRANSFER_IDLE: _ms(settings.transfer_idle_seconds),
    }
    if seconds:
        values |= {
            "tcp_user_timeout": _ms(seconds),
            "tcp_keepalives_idle": str(-(-seconds // 2)),
            "tcp_keepalives_interval": str(-(-seconds // 8)),
            "tcp_keepalives_count": "4",
            # A session that waits for a lock notices only by this that its client is gone.
            "client_connection_check_interval": _ms(seconds / 4),
        }
    await connection.execute(SET_ALL, [*values], [*values.values()])


def _ms(seconds: float) -> str:
    return f"{round(seconds * 1000)}ms"


def _limit_socket(connection: asyncpg.Connection, seconds: int) -> None:
    """Let the kernel close a connection whose server does not acknowledge anything."""
    transport: asyncio.BaseTransport = getattr(connection, "_transport")  # noqa: B009 - private
    end = transport.get_extra_info("socket")
    if end is None or end.family == socket.AF_UNIX:
        return
    options = {
        "TCP_USER_TIMEOUT": seconds * 1000,
        "TCP_KEEPIDLE": -(-seconds // 2),
        "TCP_KEEPINTVL": -(-seconds // 8),
        "TCP_KEEPCNT": 4,
    }
    end.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in options.items():
        if hasattr(socket, name):  # not every system has all of them
            end.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


async def allow_transfers(connection: Connection) -> None:
    """Let this transaction be idle while data comes from or goes elsewhere, e.g. the archive."""
    await connection.execute(ALLOW_TRANSFERS)


def session_name(name: str) -> str:
    """The name of this process in pg_stat_activity: with its host and process id."""
    return f"{name} {socket.gethostname()[:32]}:{os.getpid()}"[:63]


async def lock_waits(connection: Connection, name: str) -> list[str]:
    """Describe which locks the sessions of this process wait for, and which sessions hold them."""
    rows = await connection.fetch(LOCK_WAITS, session_name(name))
    return sorted(
        {
            f"{row['lock']} held by {row['application_name'] or row['usename']} (pid {row['pid']})"
            for row in rows
        }
    )


def used_ratio(pool: asyncpg.Pool) -> float:
    """Return the share of the pool's connections that are in use."""
    return (pool.get_size() - pool.get_idle_size()) / pool.get_max_size()


def describe(settings: DatabaseSettings) -> str:
    """Describe the database for messages, without the password."""
    return _place(settings.url)


async def connect_directly(settings: DatabaseSettings, application_name: str) -> asyncpg.Connection:
    """Open a connection to Postgres itself, for session state that outlives a transaction.

    Raises:
        ComponentError: Postgres cannot be reached, rejects the login, or is a pooler.
    """
    place = _place(settings.direct_url or settings.url)
    try:
        connection = await asyncpg.connect(
            settings.direct,
            timeout=CONNECT_SECONDS,
            server_settings={"application_name": application_name},
        )
        with terminated_on_error(connection):
            if await _is_direct(connection):
                await _prepare(settings, PLANS, connection)
                return connection
        connection.terminate()
    except FAILURES as error:
        raise ComponentError(f"{place}: {_one_line(error)}") from error
    raise ComponentError(
        f"{place} is a pooler, too: set LOGFLUME_DATABASE__DIRECT_URL to the address of Postgres "
        "itself"
    )


@contextmanager
def terminated_on_error(connection: Connection) -> Iterator[None]:
    """Terminate a connection if the block raises or is cancelled."""
    try:
        yield
    except BaseException:
        connection.terminate()
        raise


async def _is_direct(connection: Connection) -> bool:
    """Whether the process of the handshake answers queries; a pooler invents its process id."""
    pid: int = await connection.fetchval("SELECT pg_backend_pid()")
    return connection.get_server_pid() == pid


def _one_line(error: Exception) -> str:
    # Hints are on a separate line.
    return " ".join(str(error).split()) or type(error).__name__


def _place(url: SecretStr) -> str:
    parts = urlsplit(url.get_secret_value())
    hosts = parts.netloc.rpartition("@")[2].split(",")
    ports = (host if host.rpartition("]")[2].count(":") else f"{host}:5432" for host in hosts)
    return f"Postgres at {','.join(ports)}{parts.path}"


async def close_pool(pool: asyncpg.Pool) -> None:
    """Close a pool, by force if Postgres does not respond."""
    try:
        async with asyncio.timeout(CLOSE_SECONDS):
            await pool.close()
    except TimeoutError:
        pool.terminate()


async def check_writable(pool: asyncpg.Pool) -> None:
    """Check that Postgres responds, and that the session can write.

    Raises:
        ComponentError: the server is a standby, or its sessions are read-only.
    """
    async with pool.acquire() as connection:
        in_recovery = await connection.fetchval(IN_RECOVERY)
        is_read_only = await connection.fetchval(IS_READ_ONLY)
        if not in_recovery and not is_read_only:
            return
        connection.terminate()
    state = "a standby (in recovery)" if in_recovery else "read-only"
    raise ComponentError(f"Postgres cannot be written to: it is {state}")


async def check_schema(pool: asyncpg.Pool | asyncpg.Connection, role: Role | None = None) -> None:
    """Check that the schema is deployed and current, and that the user has this role, if given.

    Raises:
        ComponentError: the schema is missing or outdated, or the user lacks the role or may not
            read the schema.
    """
    deployed: Counter[str] = Counter()
    try:
        if await pool.fetchval("SELECT to_regclass('sqitch.changes') IS NOT NULL"):
            rows = await pool.fetch("SELECT change FROM sqitch.changes")
            deployed.update(row["change"] for row in rows)
    except asyncpg.InsufficientPrivilegeError as error:
        raise ComponentError(
            f"{error}: LOGFLUME_DATABASE__URL must name a user who has one of the schema's roles "
            "(docs/security.md)"
        ) from error
    if missing := sorted(_planned() - deployed):
        raise ComponentError(
            f"the database lacks {', '.join(missing)} of the logflume schema: run "
            "`logflume db deploy`"
        )
    if role and not await pool.fetchval(HAS_ROLE, role):
        user = await pool.fetchval("SELECT current_user")
        raise ComponentError(
            f"database user {user} lacks the privileges of this process: GRANT {role} TO {user}, "
            "or name another user in LOGFLUME_DATABASE__URL (docs/security.md)"
        )


def _planned() -> Counter[str]:
    """Return the changes in the plan; a change that was reworked appears more than once."""
    lines = Path(__file__).with_name("sqitch.plan").read_text().splitlines()
    return Counter(line.split()[0] for line in lines if line and line[0] not in "%@#")
