"""Compares the text of a log in a travis-logs database with the one here."""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Literal

import asyncpg
import msgspec

from db import travis_logs
from db.connect import Connection
from db.travis_logs import SourceLog

Outcome = Literal["added", "changed", "same", "ours", "left", "different"]

# The text that readers get, hashed in the database; null if only the archive holds it.
TEXTS = """
SELECT l.job_id, l.removed_at IS NOT NULL AS removed,
    CASE WHEN h.in_row THEN l.content_bytes ELSE octet_length(p.content) END AS bytes,
    CASE WHEN h.in_row THEN l.content_sha256 ELSE sha256(p.content) END AS sha256
FROM logs l,
    LATERAL (
        SELECT l.aggregated_at IS NOT NULL AND NOT l.late_parts
            AND (l.content_sha256 IS NOT NULL OR l.purged_at IS NOT NULL) AS in_row
    ) h,
    LATERAL (
        SELECT coalesce(string_agg(content, ''::bytea ORDER BY number, id), '')
            AS content
        FROM content_parts(l.id, log_attempt(l.id)) WHERE NOT h.in_row
    ) p
WHERE l.job_id = ANY ($1)
"""


class Digest(msgspec.Struct, frozen=True):
    """Size in bytes and SHA-256 of a log's text; None if only the archive holds it.

    `removed`: the text replaces one that a user removed.
    """

    size: int
    sha256: bytes | None
    removed: bool


def is_lost(log: SourceLog) -> bool:
    """Whether travis-logs lost its text: it is neither in the database nor in the archive."""
    return log.kind == "empty" and any(row.aggregated_at and row.bytes is None for row in log.rows)


def compare(
    log: SourceLog, row: asyncpg.Record, here: Digest, theirs: Digest, texts: list[bytes]
) -> tuple[Outcome, str | None]:
    """Decide what to do with a log that exists here: text received here stays.

    Except if the text was removed in travis-logs, or if it is only the end of theirs: then the job
    started before its parts were received here.
    """
    if row["kind"] is not None and not row["fed"] and not row["written"]:
        if log.kind != "archived":
            is_same = here.sha256 == theirs.sha256
        else:  # the imported text is what was archived since, unless it was written again
            was_imported = row["kind"] in ("archived", "content")
            is_same = was_imported and row["written_at"] == log.written_at
        return "same" if is_same else "changed", None
    if log.removed.removed_at and not row["removed_at"]:
        if log.kind == "content":
            return "changed", None
        return "ours", "its text was removed in travis-logs: remove it here too"
    if log.kind != "content" or here.sha256 == theirs.sha256:
        return "ours", None
    if not row["written"] and 0 < here.size < theirs.size:
        end = hashlib.sha256()
        end.update(memoryview(b"".join(texts))[-here.size :])
        if end.digest() == here.sha256:
            return "changed", None
    return "ours", describe_difference(here, theirs)


async def digest(source: Connection, log: SourceLog, texts: list[bytes]) -> Digest:
    """Digest the text by the rule of travis-logs: contents, then all parts in their order."""
    sha256, size = hashlib.sha256(), 0
    for text in texts:
        sha256.update(text)
        size += len(text)
    if log.kind == "parts":
        async for page in travis_logs.parts(source, log):
            for part in page:
                sha256.update(part.content)
                size += len(part.content)
    return Digest(size, sha256.digest(), removed=log.removed.removed_at is not None)


async def digests(connection: Connection, job_ids: Sequence[int]) -> dict[int, Digest]:
    """Digest the texts of these jobs here, by job."""
    rows = await connection.fetch(TEXTS, job_ids)
    return {
        row["job_id"]: Digest(row["bytes"] or 0, row["sha256"], removed=row["removed"])
        for row in rows
    }


def describe(log: SourceLog, log_id: int, here: Digest, theirs: Digest) -> Iterator[str]:
    """Describe what differs between a log here and in travis-logs."""
    if log_id != log.first.id:
        yield f"another job has its id {log.first.id} here, so it has {log_id}"
    if len(log.rows) > 1:
        yield f"rows {', '.join(str(row.id) for row in log.rows)} of travis-logs are one log here"
    if log.kind == "archived":
        for row in log.rows:
            if row.bytes or row.parts:
                yield (
                    f"{row.bytes or 0} bytes and {row.parts} parts of row {row.id} were left in "
                    "travis-logs, because the archive holds a text of this job"
                )
    elif is_lost(log):
        yield "travis-logs has its text neither in the database nor in the archive"
    elif difference := describe_difference(here, theirs):
        yield difference


def describe_difference(here: Digest, theirs: Digest) -> str | None:
    """Describe how two texts of one log differ; None if they are equal."""
    if here.sha256 is None:
        return "its text is only in the archive here"
    if here.sha256 == theirs.sha256:
        return None
    return (
        f"its text differs: {here.size} bytes with SHA-256 {here.sha256.hex()[:12]} here, "
        f"{theirs.size} with {(theirs.sha256 or b'').hex()[:12]} in travis-logs"
    )
