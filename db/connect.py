"""Connections to Postgres."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import asyncpg
from asyncpg.cursor import Cursor
from asyncpg.pool import PoolConnectionProxy
from pydantic import SecretStr

from db.errors import FAILURES
from logflume.errors import ComponentError
from logflume.settings.groups import DatabaseSettings

# A connection, or one borrowed from a pool.
Connection = asyncpg.Connection | PoolConnectionProxy

# The content rule takes longer to plan than to run, the more so with many partitions. Generic plans
# are safe: every query uses the primary key once sequential scans are priced out. Compiling a plan
# would take longer than running it. docs/decisions/0001-the-content-rule-is-sql.md
PLANS = {"plan_cache_mode": "force_generic_plan", "seq_page_cost": "1000", "jit": "off"}
# Skips settings this server does not have: travis-logs may run on an older Postgres.
SET_PLANS = """
SELECT set_config(name, value, false) FROM unnest($1::text[], $2::text[]) p (name, value)
WHERE EXISTS (SELECT FROM pg_settings s WHERE s.name = p.name)
"""
CONNECT_SECONDS = 10
# One per process; `db/deploy/roles.sql` grants their privileges.
Role = Literal["logflume_drain", "logflume_worker", "logflume_web"]
HAS_ROLE = """
SELECT pg_has_role($1, 'USAGE') OR pg_has_role(relowner, 'USAGE')
FROM pg_class WHERE oid = 'log_parts'::regclass
"""
CLOSE_SECONDS = 5


class _Unreset(asyncpg.Connection):
    """A connection that returns to its pool without a reset, which would cost a round trip.

    There is nothing to reset: settings are set for a transaction or, as `PLANS`, permanently, and
    listeners have connections of their own.
    """

    def get_reset_query(self) -> str:
        return ""

    async def reset(self, *, timeout: float | None = None) -> None:  # noqa: ASYNC109 - as inherited
        """Terminate a connection whose session began while the database was read-only.

        The session would stay read-only after the database is writable again.
        """
        await super().reset(timeout=timeout)
        if getattr(self.get_settings(), "default_transaction_read_only", "off") == "on":
            self.terminate()


class _Unprepared(_Unreset):
    """A connection through a pooler, where each transaction may use another server process.

    A named statement exists only in the process that prepared it. With its cache disabled, asyncpg
    sends unnamed statements together with their use, except for cursors, which it still names.
    """

    async def cursor(self, query: str, *args: object) -> Cursor:  # type: ignore[override]
        statement = await self.prepare(query, name="")
        return await statement.cursor(*args)


async def open_pool(settings: DatabaseSettings, connections: int | None = None) -> asyncpg.Pool:
    """Open a pool of at most `connections` (the setting where None).

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
            server_settings={"application_name": "logflume", "timezone": "UTC"},
            init=None if pooled else _set_plans,
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


async def _set_plans(connection: asyncpg.Connection) -> None:
    await connection.execute(SET_PLANS, [*PLANS], [*PLANS.values()])


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
    return f"Postgres at {parts.hostname}:{parts.port or 5432}{parts.path}"


async def close_pool(pool: asyncpg.Pool) -> None:
    """Close a pool, by force if Postgres does not respond."""
    try:
        async with asyncio.timeout(CLOSE_SECONDS):
            await pool.close()
    except TimeoutError:
        pool.terminate()


async def check_schema(pool: asyncpg.Pool, role: Role | None = None) -> None:
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
