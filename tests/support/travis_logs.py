"""A database with the schema of travis-logs, and rows as travis-logs writes them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import asyncpg

from logflume_cli.devstack.home import Home

# After all its migrations: nearly every column is nullable, times have no zone, a job may have two
# rows, and parts are in daily child tables that pg_partman creates by inheritance.
SCHEMA = """
CREATE TABLE logs (
    id serial PRIMARY KEY,
    job_id integer,
    content text,
    removed_by integer,
    created_at timestamp,
    updated_at timestamp,
    aggregated_at timestamp,
    archived_at timestamp,
    purged_at timestamp,
    removed_at timestamp,
    archiving boolean,
    archive_verified boolean,
    scan_status varchar
);
CREATE INDEX index_logs_on_job_id ON logs (job_id);
CREATE TABLE log_parts (
    id bigserial PRIMARY KEY,
    log_id integer NOT NULL,
    content text,
    number integer,
    final boolean,
    created_at timestamp NOT NULL DEFAULT '2000-01-01'
);
CREATE INDEX index_log_parts_on_log_id_and_number ON log_parts (log_id, number);
CREATE TABLE log_parts_p2026_11_24 (LIKE log_parts INCLUDING ALL) INHERITS (log_parts);
"""
THEN = datetime(2026, 11, 24, 10, tzinfo=UTC)


class TravisLogs:
    """Writes rows as travis-logs does."""

    def __init__(self, connection: asyncpg.Connection, url: str) -> None:
        self.connection = connection
        self.url = url

    async def log(self, job_id: int | None, content: str | None = None, **columns: Any) -> int:
        """Add a row, aggregated where it has content; returns its id."""
        given = {"created_at": THEN, "updated_at": THEN, **columns}
        if content is not None:
            given = {"aggregated_at": THEN, **given}
        return await self._insert("logs", {"job_id": job_id, "content": content, **given})

    async def archived(self, job_id: int, **columns: Any) -> int:
        """Add the row of a log that is archived, verified and purged."""
        columns |= dict.fromkeys(("aggregated_at", "archived_at", "purged_at"), THEN)
        return await self.log(job_id, archive_verified=True, **columns)

    async def part(self, log_id: int, number: int | None, content: str, **columns: Any) -> None:
        """Add a part, in a partition of its own."""
        given = {"final": False, "created_at": THEN, **columns}
        columns = {"log_id": log_id, "number": number, "content": content, **given}
        await self._insert("log_parts_p2026_11_24", columns)

    async def archive(self, job_id: int) -> None:
        """Mark an aggregated log as archived and purge its content."""
        await self.connection.execute(
            "UPDATE logs SET content = NULL, archived_at = $2, archive_verified = true,"
            " purged_at = $2 WHERE job_id = $1",
            job_id,
            THEN.replace(tzinfo=None),
        )

    async def write(self, job_id: int, content: str | None, **columns: Any) -> None:
        """Replace the content as its `PUT` does, which does not change `purged_at`."""
        await self.connection.execute(
            "DELETE FROM log_parts WHERE log_id IN (SELECT id FROM logs WHERE job_id = $1)", job_id
        )
        given = {"content": content, "updated_at": datetime.now(UTC), **columns}
        given |= {"aggregated_at": THEN if content else None}
        given |= {"archived_at": None, "archive_verified": None}
        changes = ", ".join(f"{name} = ${place}" for place, name in enumerate(given, 2))
        await self.connection.execute(
            f"UPDATE logs SET {changes} WHERE job_id = $1", job_id, *map(_plain, given.values())
        )

    async def _insert(self, table: str, columns: dict[str, Any]) -> int:
        places = ", ".join(f"${place}" for place, _ in enumerate(columns, 1))
        made: int = await self.connection.fetchval(
            f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({places}) RETURNING id",
            *map(_plain, columns.values()),
        )
        return made


@asynccontextmanager
async def travis_logs(servers: Home, name: str) -> AsyncIterator[TravisLogs]:
    """Create a database with this name and the schema; drop it afterwards."""
    admin = await asyncpg.connect(servers.database_url("postgres"))
    await admin.execute(f"CREATE DATABASE {name}")
    url = servers.database_url(name)
    connection = await asyncpg.connect(url)
    await connection.execute(SCHEMA)
    yield TravisLogs(connection, url)
    await connection.close()
    await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await admin.close()


def _plain(value: Any) -> Any:
    return value.replace(tzinfo=None) if isinstance(value, datetime) else value
