"""Imports logs from a travis-logs database, as if their parts had been received here.

Text that travis-logs aggregated becomes content written whole, its parts become parts without a
uuid; the sweep finds both, and their workflows archive them. Archived text stays in the archive.
"""

from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec

from db import partitions, travis_logs
from db.connect import Connection, allow_transfers
from db.import_compare import (
    Outcome,
    compare,
    describe,
    describe_difference,
    digest,
    digests,
    is_lost,
)
from db.logs import LOCK_WHOLE, WholeContent, replace_contents
from db.maintenance import check_writing
from db.parts import add_parts
from db.travis_logs import Kind, SourceLog
from logflume.domain import LAST
from logflume.errors import UnderHold

# Log ids of travis-logs have 32 bits: ours begin above all of them.
BEYOND = 2**31
RESERVE = """
SELECT setval('logs_id_seq', $1::bigint) WHERE (SELECT last_value FROM logs_id_seq) < $1::bigint
"""
SEEN = "SELECT job_id, seen FROM imported_logs WHERE job_id = ANY ($1)"

# The unnamed attempt of an archived log begins at infinity, so it remains the log, and
# `parts_since` marks its parts as dropped: later parts from a runner change nothing.
ROWS = """
WITH source AS MATERIALIZED (
    SELECT g.*, CASE WHEN g.kind = 'archived'
        THEN nextval('log_attempts_id_seq') END AS attempt_id
    FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::timestamptz[], $5::timestamptz[],
        $6::timestamptz[], $7::timestamptz[], $8::timestamptz[], $9::timestamptz[], $10::bigint[],
        $11::bytea[], $12::timestamptz[])
        g (id, job_id, kind, created_at, updated_at, aggregated_at, archived_at, purged_at,
            removed_at, removed_by, seen, written_at)
), inserted AS (
    INSERT INTO logs (id, job_id, created_at, updated_at, aggregated_at, archived_at,
        archive_verified, purged_at, parts_since, content_attempt_id, removed_at, removed_by, empty)
    SELECT coalesce(g.id, nextval('logs_id_seq')), g.job_id, g.created_at,
        g.updated_at, g.aggregated_at, g.archived_at, g.kind = 'archived', g.purged_at,
        CASE WHEN g.kind = 'archived' THEN g.created_at END, g.attempt_id, g.removed_at,
        g.removed_by, g.kind = 'empty'
    FROM source g ORDER BY g.job_id
    ON CONFLICT DO NOTHING
    RETURNING id, job_id, content_attempt_id
), attempts AS (
    INSERT INTO log_attempts (id, log_id, uuid, began_at)
    SELECT content_attempt_id, id, '', 'infinity' FROM inserted
    WHERE content_attempt_id IS NOT NULL
), recorded AS (
    INSERT INTO imported_logs (job_id, kind, seen, written_at)
    SELECT g.job_id, g.kind, g.seen, g.written_at
    FROM inserted n JOIN source g ON g.job_id = n.job_id
    -- Retention deletes rows of logs, but not their import records.
    ON CONFLICT (job_id) DO UPDATE SET kind = excluded.kind, seen = excluded.seen,
        written_at = excluded.written_at, note = NULL, generation = 0
)
SELECT job_id, id FROM inserted
"""

# `fed`: attempts of the job were received here; `written`: a client wrote content whole here.
FIND = """
SELECT l.id, i.kind, i.written_at, l.generation <> coalesce(i.generation, 0) AS written,
    l.removed_at,
    EXISTS (SELECT FROM log_attempts WHERE log_id = l.id AND uuid <> '') AS fed
FROM logs l LEFT JOIN imported_logs i ON i.job_id = l.job_id WHERE l.job_id = $1
"""
SET_ROW = """
UPDATE logs SET created_at = $2, updated_at = $3, removed_at = $4, removed_by = $5, empty = $6,
    archive_outdated = archive_outdated AND $7
WHERE id = $1
"""
SET_ARCHIVED = """
WITH attempt AS (
    UPDATE log_attempts SET began_at = 'infinity' WHERE log_id = $1 AND uuid = '' RETURNING id
)
UPDATE logs l SET aggregated_at = $2, archived_at = $3, archive_verified = true, purged_at = $4,
    parts_since = l.created_at, content_attempt_id = attempt.id
FROM attempt WHERE l.id = $1
"""
UNNAMED = "SELECT id FROM log_attempts WHERE log_id = $1 AND uuid = ''"
SET_BEGIN = "UPDATE log_attempts SET began_at = $2 WHERE id = $1"
RECORD = """
INSERT INTO imported_logs (job_id, kind, seen, written_at, note, generation)
SELECT $1, $2, $3, $4, $5, generation FROM logs WHERE job_id = $1
ON CONFLICT (job_id) DO UPDATE SET kind = excluded.kind, seen = excluded.seen,
    written_at = excluded.written_at, note = excluded.note, generation = excluded.generation
"""


class ImportResult(msgspec.Struct, frozen=True):
    """The outcome for one job's log.

    It was `added` or `changed`, is the `same` as before, exists here independently (`ours`), or was
    `left` in travis-logs; a comparison yields `same` or `different`. `note` describes differences.
    """

    job_id: int
    outcome: Outcome
    kind: Kind
    note: str | None = None


async def reserve_ids(connection: Connection, highest: int) -> None:
    """Set the sequence of log ids above every id that travis-logs has or will assign."""
    await connection.execute(RESERVE, max(BEYOND, highest))


class Importer:
    """Imports logs over two connections; the one to travis-logs is in a single snapshot."""

    def __init__(self, connection: Connection, source: Connection) -> None:
        self._connection = connection
        self._source = source

    async def store_page(self, logs: Sequence[SourceLog]) -> list[ImportResult]:
        """Import a page of logs, except those unchanged since their last import.

        Rows without text are inserted together, every other log in a transaction of its own.

        Raises:
            UnderMaintenance: maintenance is on.
        """
        job_ids = [log.first.job_id for log in logs]
        seen = {row["job_id"]: row["seen"] for row in await self._connection.fetch(SEEN, job_ids)}
        results = [
            ImportResult(log.first.job_id, "same", log.kind) for log in logs if _is_seen(log, seen)
        ]
        rest = [log for log in logs if not _is_seen(log, seen)]
        added = await _add_rows(self._connection, [_columns(log) for log in rest if _is_bare(log)])
        for log in rest:
            if log.first.job_id in added:
                results.append(ImportResult(log.first.job_id, "added", log.kind))
                continue
            try:
                results.append(await self._store(log))
            except UnderHold as error:  # the next run tries again
                results.append(ImportResult(log.first.job_id, "ours", log.kind, str(error)))
        return results

    async def differences(self, logs: Sequence[SourceLog]) -> list[ImportResult]:
        """Compare the texts of a page of logs with those here; returns a result for each log.

        Text that only the archive holds is not compared.
        """
        ours = await digests(self._connection, [log.first.job_id for log in logs])
        results = []
        for log in logs:
            here, note = ours.get(log.first.job_id), None
            if here is None:
                note = "it is missing"
            elif log.removed.removed_at and not here.removed:
                note = "its text was removed in travis-logs and is still here"
            elif log.kind != "archived":
                texts = await travis_logs.texts(self._source, log)
                note = describe_difference(here, await digest(self._source, log, texts))
            outcome: Outcome = "different" if note else "same"
            results.append(ImportResult(log.first.job_id, outcome, log.kind, note))
        return results

    async def _store(self, log: SourceLog) -> ImportResult:
        """Import one log, whether or not it exists here already."""
        job_id = log.first.job_id
        if job_id < 0:
            note = f"row {log.first.id}: its job id is negative"
            return ImportResult(job_id, "left", log.kind, note)
        texts = [] if log.kind == "archived" else await travis_logs.texts(self._source, log)
        theirs = await digest(self._source, log, texts)
        async with self._connection.transaction():
            await allow_transfers(self._connection)
            await check_writing(self._connection)
            added = await _add_rows(self._connection, [_columns(log)])
            await self._connection.execute(LOCK_WHOLE, [job_id])
            row = None if added else await self._connection.fetchrow(FIND, job_id)
            outcome: Outcome = "added"
            if row:
                here = (await digests(self._connection, [job_id]))[job_id]
                outcome, difference = compare(log, row, here, theirs, texts)
                if outcome == "ours":
                    return ImportResult(job_id, outcome, log.kind, difference)
            elif not added:  # another job's log has its id
                added = await _add_rows(self._connection, [_columns(log, keep_id=False)])
            log_id: int = row["id"] if row else added[job_id]
            if outcome == "changed" or (outcome == "added" and log.kind in ("content", "parts")):
                await self._write(log, log_id, texts, is_new=outcome == "added")
            here = (await digests(self._connection, [job_id]))[job_id]
            notes = "; ".join(describe(log, log_id, here, theirs)) or None
            await self._connection.execute(
                RECORD, job_id, log.kind, log.seen, log.written_at, notes
            )
        return ImportResult(job_id, outcome, log.kind, notes)

    async def _write(
        self,
        log: SourceLog,
        log_id: int,
        texts: list[bytes],
        *,
        is_new: bool,
    ) -> None:
        """Write the text of the log, by the rules of content written whole."""
        created_at, updated_at, aggregated_at, archived_at, purged_at = _times(log)
        removed = log.removed
        whole = WholeContent(log.first.job_id, b"".join(texts), removed.removed_by)
        await replace_contents(self._connection, [whole])
        # The archived object of travis-logs stays until ours replaces it: a deletion is pending
        # only if the log was archived here before.
        is_ours = not is_new and log.kind != "archived"
        is_empty = log.kind == "empty"
        await self._connection.execute(
            SET_ROW,
            log_id,
            created_at,
            updated_at,
            removed.removed_at,
            removed.removed_by,
            is_empty,
            is_ours,
        )
        if log.kind == "archived":
            await self._connection.execute(
                SET_ARCHIVED, log_id, aggregated_at, archived_at, purged_at
            )
        elif log.kind == "parts":
            await self._copy_parts(log, log_id)

    async def _copy_parts(self, log: SourceLog, log_id: int) -> None:
        """Copy parts into the attempt without a uuid, at receive times that have a partition."""
        found = await partitions.partitions(self._connection)
        oldest = min((partition.begin for partition in found.ranges), default=found.now)
        attempt_id = await self._connection.fetchval(UNNAMED, log_id)
        begins: datetime | None = None
        async for page in travis_logs.parts(self._source, log):
            records = [
                (
                    min(max(part.created_at, oldest), found.now),
                    max(part.number, 0),
                    part.final,
                    part.content,
                )
                for part in page
            ]
            await add_parts(self._connection, log_id, attempt_id, records)
            numbered = [record[0] for record in records if record[1] != LAST]
            begins = min([*numbered, begins] if begins else numbered, default=None)
        await self._connection.execute(SET_BEGIN, attempt_id, begins)


def _is_seen(log: SourceLog, seen: dict[int, bytes]) -> bool:
    return seen.get(log.first.job_id) == log.seen


def _is_bare(log: SourceLog) -> bool:
    """Whether the row is all there is to import, and no note is needed."""
    plain = len(log.rows) == 1 and not log.first.parts and not log.first.bytes
    return plain and not is_lost(log) and log.first.job_id >= 0


def _columns(log: SourceLog, *, keep_id: bool = True) -> tuple[object, ...]:
    """Return the parameters of `ROWS` for one log; with a new id unless `keep_id`."""
    removed = log.removed
    return (
        log.first.id if keep_id else None,
        log.first.job_id,
        log.kind,
        *_times(log),
        removed.removed_at,
        removed.removed_by,
        log.seen,
        log.written_at,
    )


def _times(log: SourceLog) -> tuple[datetime | None, ...]:
    """Return when it was created, updated, aggregated, archived and purged."""
    created_at = log.first.created_at or log.first.updated_at or datetime.now(UTC)
    updated_at = log.first.updated_at or created_at
    if log.kind == "archived":
        row = next(row for row in log.rows if row.is_archived)
        at = row.archived_at
        return created_at, updated_at, row.aggregated_at or at, at, row.purged_at or at
    # A log with text is aggregated again, here.
    aggregated_at = log.first.aggregated_at if log.kind == "empty" else None
    return created_at, updated_at, aggregated_at, None, None


async def _add_rows(
    connection: Connection, columns: Sequence[tuple[object, ...]]
) -> dict[int, int]:
    """Insert rows without texts; returns the ids, by job, of those whose job and id were free."""
    if not columns:
        return {}
    rows = await connection.fetch(ROWS, *(list(column) for column in zip(*columns, strict=True)))
    return {row["job_id"]: row["id"] for row in rows}
