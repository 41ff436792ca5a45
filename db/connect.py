"""Connections to Postgres."""

import asyncio
from urllib.parse import urlsplit

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from errors import ComponentError
from settings import DatabaseSettings

# A connection of one's own, or one borrowed from a pool.
Connection = asyncpg.Connection | PoolConnectionProxy

# What asyncpg raises when Postgres is out of reach: worth another try, whoever asks.
UNREACHABLE = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
)
CONNECT_SECONDS = 10
CLOSE_SECONDS = 5


async def open_pool(settings: DatabaseSettings, connections: int | None = None) -> asyncpg.Pool:
    """Open a pool of at most `connections` (the setting where None).

    Raises:
        ComponentError: Postgres is out of reach or refuses us.
    """
    most = connections or settings.connections
    try:
        return await asyncpg.create_pool(
            settings.url.get_secret_value(),
            min_size=1,
            max_size=most,
            timeout=CONNECT_SECONDS,
            server_settings={"application_name": "logflume", "timezone": "UTC"},
        )
    except (*UNREACHABLE, asyncpg.PostgresError, ValueError) as error:
        raise ComponentError(f"{describe(settings)}: {error or type(error).__name__}") from error


def describe(settings: DatabaseSettings) -> str:
    """Name the database for a person, without the password."""
    parts = urlsplit(settings.url.get_secret_value())
    return f"Postgres at {parts.hostname}:{parts.port or 5432}{parts.path}"


async def close_pool(pool: asyncpg.Pool) -> None:
    """Close a pool, by force where Postgres does not answer."""
    try:
        async with asyncio.timeout(CLOSE_SECONDS):
            await pool.close()
    except TimeoutError:
        pool.terminate()


async def check_schema(pool: asyncpg.Pool) -> None:
    """Find out whether the schema is deployed.

    Raises:
        ComponentError: it is not, or not up to date.
    """
    if not await pool.fetchval("SELECT to_regclass('logs_unfinished') IS NOT NULL"):
        raise ComponentError(
            "the database lacks the logflume schema, or its newest change: run `logflume db deploy`"
        )
