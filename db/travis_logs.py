"""Reads a travis-logs database: rows by job, texts as bytes.

Facts about its schema: times are UTC without a zone; every column except the ids may be null;
several rows of `logs` may have the same job.
"""

import hashlib
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Literal

import asyncpg
import msgspec

from db.connect import Connection
from logflume.domain import LAST
from logflume.errors import ComponentError

Kind = Literal["archived", "content", "parts", "empty"]

NEEDED = {
    "logs": {
        "id",
        "job_id",
        "content",
        "removed_by",
        "created_at",
        "updated_at",
        "aggregated_at",
        "archived_at",
        "archive_verified",
        "purged_at",
        "removed_at",
    },
    "log_parts": {"id", "log_id", "content", "number", "final", "created_at"},
}
# Our own tables have columns of the same names, but their content is not of type text.
COLUMNS = """
SELECT table_name, column_name FROM information_schema.columns
WHERE table_schema = ANY (current_schemas(false)) AND table_name IN ('logs', 'log_parts')
    AND (column_name <> 'content' OR data_type = 'text')
"""
ENCODING = "SELECT current_setting('server_encoding')"

PAGE = "SELECT id, job_id FROM logs WHERE id > $1 ORDER BY id LIMIT $2"
HIGHEST = "SELECT coalesce(max(id), 0) FROM logs"
# The connection's time zone is UTC. The lengths of texts are read without the texts.
ROWS = """
SELECT l.id, l.job_id, l.created_at::timestamptz, l.updated_at::timestamptz,
    l.aggregated_at::timestamptz, l.archived_at::timestamptz,
    l.archive_verified IS TRUE AS archive_verified, l.purged_at::timestamptz,
    l.removed_at::timestamptz, l.removed_by, octet_length(l.content) AS bytes,
    coalesce(p.parts, 0) AS parts, p.newest_part
FROM logs l
LEFT JOIN (
    SELECT log_id, count(*) AS parts, max(id) AS newest_part
    FROM log_parts
    WHERE log_id IN (SELECT id FROM logs WHERE job_id = ANY ($1))
    GROUP BY log_id
) p ON p.log_id = l.id
WHERE l.job_id = ANY ($1)
ORDER BY l.id
"""
CONTENT = "SELECT convert_to(content, 'UTF8') FROM logs WHERE id = $1"
# In the order of travis-logs. $2: the number of parts without one.
PARTS = """
SELECT coalesce(number, $2::integer) AS number, final IS TRUE AS final,
    created_at::timestamptz AS created_at, convert_to(coalesce(content, ''), 'UTF8') AS content
FROM log_parts WHERE log_id = ANY ($1) ORDER BY number, id
"""
PARTS_PER_PAGE = 500


class SourceRow(msgspec.Struct, frozen=True):
    """A row of `logs` without the text; `bytes` is the length of the text, None if it has none."""

    id: int
    job_id: int
    created_at: datetime | None
    updated_at: datetime | None
    aggregated_at: datetime | None
    archived_at: datetime | None
    archive_verified: bool
    purged_at: datetime | None
    removed_at: datetime | None
    removed_by: int | None
    bytes: int | None
    parts: int
    newest_part: int | None

    @property
    def is_archived(self) -> bool:
        """Whether only the archive holds its text; writing content whole keeps `purged_at`."""
        return self.bytes is None and self.archived_at is not None and self.archive_verified


class SourceLog(msgspec.Struct, frozen=True):
    """All rows of one job, by id; the first determines the id and the times of the log."""

    rows: list[SourceRow]

    @property
    def first(self) -> SourceRow:
        """The row that determines the id and the times of the log."""
        return self.rows[0]

    @property
    def kind(self) -> Kind:
        """Where its text is; an archived row takes precedence: there is one object per job."""
        if any(row.is_archived for row in self.rows):
            return "archived"
        if any(row.parts for row in self.rows):
            return "parts"
        return "content" if any(row.bytes for row in self.rows) else "empty"

    @property
    def removed(self) -> SourceRow:
        """The row that records who removed its text and when, if it was removed."""
        return next((row for row in self.rows if row.removed_at is not None), self.first)

    @property
    def written_at(self) -> datetime | None:
        """When content was last written whole; nothing else updates this time in travis-logs."""
        return max((row.updated_at for row in self.rows if row.updated_at), default=None)

    @property
    def seen(self) -> bytes:
        """A digest of everything but the text, of which only the length counts."""
        return hashlib.blake2b(msgspec.msgpack.encode(self.rows), digest_size=16).digest()


class SourcePart(msgspec.Struct, frozen=True):
    """A row of `log_parts`; without a number it comes after all others, as in travis-logs."""

    number: int
    final: bool
    created_at: datetime
    content: bytes


async def check_source(connection: Connection, name: str) -> None:
    """Check that a database has the schema of travis-logs; `name` describes it in errors.

    Raises:
        ComponentError: tables or columns are missing, or this user may not read them.
    """
    columns = {(row["table_name"], row["column_name"]) for row in await connection.fetch(COLUMNS)}
    missing = [
        f"{table}.{column}"
        for table, needed in NEEDED.items()
        for column in sorted(needed)
        if (table, column) not in columns
    ]
    if missing:
        raise ComponentError(
            f"{name} is not a travis-logs database, or this user may not read it: it lacks "
            f"{', '.join(missing)} (content must be of type text)"
        )
    if (encoding := await connection.fetchval(ENCODING)) == "SQL_ASCII":
        raise ComponentError(
            f"{name} has the encoding {encoding}, which leaves its bytes undefined: restore a dump "
            "of it into a database with the encoding UTF8, and import that"
        )


async def highest_id(connection: Connection) -> int:
    """Return the highest id of a log."""
    highest: int = await connection.fetchval(HIGHEST)
    return highest


async def page(
    connection: Connection, after: int, count: int
) -> tuple[list[tuple[int, int | None]], list[SourceLog]]:
    """Read the next `count` rows with ids above `after`.

    Returns the id and job of each row, and the logs whose first row is among them, with all of
    their rows.
    """
    rows = [(row["id"], row["job_id"]) for row in await connection.fetch(PAGE, after, count)]
    job_ids = {job_id for _, job_id in rows if job_id is not None}
    by_job: dict[int, list[SourceRow]] = {}
    for row in await connection.fetch(ROWS, job_ids):
        by_job.setdefault(row["job_id"], []).append(SourceRow(**row))
    return rows, [SourceLog(log) for log in by_job.values() if log[0].id > after]


async def texts(connection: Connection, log: SourceLog) -> list[bytes]:
    """Read the texts of a log's rows into memory, in the order of the rows, equal ones once."""
    texts: list[bytes] = []
    for row in log.rows:
        if row.bytes and (text := await connection.fetchval(CONTENT, row.id)) not in texts:
            texts.append(text)
    return texts


async def parts(connection: Connection, log: SourceLog) -> AsyncIterator[list[SourcePart]]:
    """Read the parts of a log's rows in their order, in pages."""
    log_ids = [row.id for row in log.rows]
    cursor: asyncpg.cursor.Cursor = await connection.cursor(PARTS, log_ids, LAST)
    while rows := await cursor.fetch(PARTS_PER_PAGE):
        yield [SourcePart(**row) for row in rows]
