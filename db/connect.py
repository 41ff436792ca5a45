"""Connections to Postgres."""

import asyncio
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import asyncpg
from asyncpg.cursor import Cursor
from asyncpg.pool import PoolConnectionProxy
from pydantic import SecretStr

from logflume.errors import ComponentError
from logflume.settings.groups import DatabaseSettings

# A connection of one's own, or one borrowed from a pool.
Connection = asyncpg.Connection | PoolConnectionProxy

# What asyncpg raises when Postgres is out of reach or has no room: worth another try, whoever
# asks.
UNREACHABLE = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.TransactionRollbackError,
    asyncpg.InsufficientResourcesError,
)
# The content rule takes longer to plan than to run, the more partitions there are. A plan for all
# values serves, as all goes by the key, if reading a partition as a whole is no choice; compiling
# it would take longer than any of them. docs/decisions/0001-the-content-rule-is-sql.md
PLANS = {"plan_cache_mode": "force_generic_plan", "seq_page_cost": "1000", "jit": "off"}
# What an older Postgres, as travis-logs may have, does not know is left alone.
SET_PLANS = """
SELECT set_config(name, value, false) FROM unnest($1::text[], $2::text[]) p (name, value)
WHERE EXISTS (SELECT FROM pg_settings s WHERE s.name = p.name)
"""
CONNECT_SECONDS = 10
# By the processes; `db/deploy/roles.sql` says what each may do.
Role = Literal["logflume_drain", "logflume_worker", "logflume_web"]
HAS_ROLE = """
SELECT pg_has_role($1, 'USAGE') OR pg_has_role(relowner, 'USAGE')
FROM pg_class WHERE oid = 'log_parts'::regclass
"""
CLOSE_SECONDS = 5


class _Unreset(asyncpg.Connection):
    """A connection that goes back to its pool as it is.

    The pool would ask Postgres to reset it, a round trip for each use. There is nothing to reset:
    what we set, we set for a transaction or, as `PLANS`, for good; who listens has a connection of
    its own.
    """

    def get_reset_query(self) -> str:
        return ""

    async def reset(self, *, timeout: float | None = None) -> None:  # noqa: ASYNC109 - as inherited
        """Leave the pool where the database was read-only when the session began.

        The session would stay so, and be tried again for ever, when the database no longer is.
        """
        await super().reset(timeout=timeout)
        if getattr(self.get_settings(), "default_transaction_read_only", "off") == "on":
            self.terminate()


class _Unprepared(_Unreset):
    """A connection through a pooler, where each transaction may meet another server process.

    A named statement would stay behind in the process it was made in. asyncpg, told to cache none,
    sends unnamed ones together with their use; only those of cursors it would name all the same.
    """

    async def cursor(self, query: str, *args: object) -> Cursor:  # type: ignore[override]
        statement = await self.prepare(query, name="")
        return await statement.cursor(*args)


async def open_pool(settings: DatabaseSettings, connections: int | None = None) -> asyncpg.Pool:
    """Open a pool of at most `connections` (the setting where None).

    Raises:
        ComponentError: Postgres is out of reach, refuses us, or hides behind a pooler that the
            settings do not tell of.
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
    except (*UNREACHABLE, asyncpg.PostgresError, ValueError) as error:
        raise ComponentError(f"{describe(settings)}: {_said(error)}") from error
    pool.terminate()
    raise ComponentError(
        f"{describe(settings)} is a pooler: set LOGFLUME_DATABASE__DIRECT_URL to the address of "
        "Postgres itself; an import wants that address with --from"
    )


async def _set_plans(connection: asyncpg.Connection) -> None:
    await connection.execute(SET_PLANS, [*PLANS], [*PLANS.values()])


def used_ratio(pool: asyncpg.Pool) -> float:
    """Connections that are in use, of those the pool may hold."""
    return (pool.get_size() - pool.get_idle_size()) / pool.get_max_size()


def describe(settings: DatabaseSettings) -> str:
    """Name the database for a person, without the password."""
    return _place(settings.url)


async def connect_directly(settings: DatabaseSettings, application_name: str) -> asyncpg.Connection:
    """Open a connection to Postgres itself, for what lasts longer than a transaction.

    Raises:
        ComponentError: it is out of reach, refuses us, or is a pooler after all.
    """
    place = _place(settings.direct_url or settings.url)
    try:
        connection = await asyncpg.connect(
            settings.direct,
            timeout=CONNECT_SECONDS,
            server_settings={"application_name": application_name},
        )
        if await _is_direct(connection):
            return connection
        connection.terminate()
    except (*UNREACHABLE, asyncpg.PostgresError, ValueError) as error:
        raise ComponentError(f"{place}: {_said(error)}") from error
    raise ComponentError(
        f"{place} is a pooler, too: set LOGFLUME_DATABASE__DIRECT_URL to the address of Postgres "
        "itself"
    )


async def _is_direct(connection: Connection) -> bool:
    """Whether the process that greeted us is the one that answers; a pooler makes an id up."""
    answers: int = await connection.fetchval("SELECT pg_backend_pid()")
    return connection.get_server_pid() == answers


def _said(error: Exception) -> str:
    # Hints stand on a line of their own.
    return " ".join(str(error).split()) or type(error).__name__


def _place(url: SecretStr) -> str:
    parts = urlsplit(url.get_secret_value())
    return f"Postgres at {parts.hostname}:{parts.port or 5432}{parts.path}"


async def close_pool(pool: asyncpg.Pool) -> None:
    """Close a pool, by force where Postgres does not answer."""
    try:
        async with asyncio.timeout(CLOSE_SECONDS):
            await pool.close()
    except TimeoutError:
        pool.terminate()


async def check_schema(pool: asyncpg.Pool, role: Role | None = None) -> None:
    """Find out whether the schema is deployed, and we are in this role or may do everything.

    Raises:
        ComponentError: it is not, or not up to date, or is not ours to see, or to use so.
    """
    deployed = set()
    try:
        if await pool.fetchval("SELECT to_regclass('sqitch.changes') IS NOT NULL"):
            rows = await pool.fetch("SELECT change FROM sqitch.changes")
            deployed = {row["change"] for row in rows}
    except asyncpg.InsufficientPrivilegeError as error:
        raise ComponentError(
            f"{error}: LOGFLUME_DATABASE__URL must name a user who is in one of the schema's roles "
            "(docs/security.md)"
        ) from error
    if missing := [name for name in _planned() if name not in deployed]:
        raise ComponentError(
            f"the database lacks {', '.join(missing)} of the logflume schema: run "
            "`logflume db deploy`"
        )
    if role and not await pool.fetchval(HAS_ROLE, role):
        user = await pool.fetchval("SELECT current_user")
        raise ComponentError(
            f"user {user} of the database may not do what this process does: GRANT {role} TO "
            f"{user}, or name another in LOGFLUME_DATABASE__URL (docs/security.md)"
        )


def _planned() -> list[str]:
    """The changes of the schema, as sqitch's plan names them."""
    lines = Path(__file__).with_name("sqitch.plan").read_text().splitlines()
    return [line.split()[0] for line in lines if line and line[0] not in "%@#"]
