"""The query behind every live reader of a log: parts since a cursor."""

from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

import msgspec

from db.connect import Connection
from logflume.domain import StoredPart

# For each position, in the order of number: a window of numbers from the first that exists, at most
# its share of a megabyte (a longer part comes alone); unknown `last` parts only after every
# numbered one. One query for several logs: starting it costs Postgres more than another log does.
READ = """
SELECT l.place, l.id AS log_id, l.generation, l.attempt_id, l.aggregated, l.highest,
    (SELECT last_value FROM log_parts_id_seq) AS top,
    coalesce(l.first::bigint + 500 <= l.highest, false) AS more,
    pg_current_snapshot()::text AS snapshot,
    n.found, n.id, n.number, n.final, n.content
FROM (
    SELECT s.place, s.lasts, l.id, l.generation, coalesce(a.id, 0) AS attempt_id,
        l.aggregated_at IS NOT NULL AND NOT l.late_parts AS aggregated,
        CASE WHEN s.number < 0 THEN number_whole() ELSE (
            SELECT min(p.number) FROM log_parts p
            WHERE p.log_id = l.id AND p.attempt_id = a.id
                AND p.number BETWEEN s.number AND number_last() - 1
        ) END AS first,
        coalesce((
            SELECT max(p.number) FROM log_parts p
            WHERE p.log_id = l.id AND p.attempt_id = a.id
                AND p.number BETWEEN 0 AND number_last() - 1
        ), -1) AS highest
    FROM unnest($1::bigint[], $2::integer[], $3::text[])
        WITH ORDINALITY s (job_id, number, lasts, place)
    JOIN logs l ON l.job_id = s.job_id
    LEFT JOIN LATERAL log_attempt(l.id) a (id) ON true
    OFFSET 0
) l LEFT JOIN LATERAL (
    SELECT p.id, p.number, p.final, p.content, count(*) OVER () AS found,
        sum(octet_length(p.content)) OVER (ORDER BY p.number, p.id)
            - octet_length(p.content) AS before
    FROM (
        SELECT * FROM content_parts(l.id, l.attempt_id) c
        WHERE c.number >= l.first AND c.number::bigint < l.first::bigint + 500
            AND c.number < number_last()
        UNION ALL
        SELECT * FROM content_parts(l.id, l.attempt_id) c
        WHERE c.number = number_last()
            AND left(encode(sha256(c.content), 'hex'), 12) <> ALL (string_to_array(l.lasts, ' '))
            AND coalesce(l.first::bigint + 500 > l.highest, true)
    ) p
) n ON n.before < 1048576 / cardinality($1)
ORDER BY l.place, n.number, n.id
"""
# Below a cursor: numbers in its gaps, and numbers that have other bytes by now, but not parts that
# were only redelivered. By id, in pages of about a megabyte.
LATE = """
SELECT l.id, l.number, l.final, l.content FROM (
    SELECT n.id, n.number, n.final, n.content,
        sum(octet_length(n.content)) OVER (ORDER BY n.id) - octet_length(n.content) AS before
    FROM content_parts($1, $2) n
    WHERE EXISTS (
            SELECT FROM unnest($3::integer[], $4::integer[]) g (first, last)
            WHERE n.number BETWEEN g.first AND g.last
        )
        OR (n.number BETWEEN $5 AND $6 AND n.id > $7 AND NOT EXISTS (
            SELECT FROM log_parts o
            WHERE o.log_id = $1 AND o.attempt_id = n.attempt_id AND o.number = n.number
                AND o.id <= $7 AND o.content = n.content AND o.final = n.final
        ))
    ORDER BY n.id LIMIT 500
) l
WHERE l.before < 1048576
ORDER BY l.id
"""


class Horizon(NamedTuple):
    """The transactions visible to a query: those below `end` that were not `running`."""

    end: int
    running: frozenset[int]

    @classmethod
    def parse(cls, snapshot: str) -> "Horizon":
        """Parse Postgres' text form of a snapshot, `xmin:xmax:xid,xid`."""
        _, end, running = snapshot.split(":")
        return cls(int(end), frozenset(map(int, filter(None, running.split(",")))))

    def saw(self, transaction: int) -> bool:
        """Whether what the transaction wrote was visible."""
        return transaction < self.end and transaction not in self.running


class Since(NamedTuple):
    """A position: a job's parts from `number` on, without known `last` parts.

    `lasts` are the first 12 hex digits of the SHA-256 of those.
    """

    job_id: int
    number: int
    lasts: Sequence[str] = ()


class TailPage(msgspec.Struct, frozen=True):
    """A page of a log's parts since a position, and the state of the log in the same snapshot.

    `aggregated`: no more parts are expected. `highest`: its highest number, -1 if it has none.
    `top`: no part has a higher id. `more`: there are more parts than these.
    """

    log_id: int
    generation: int
    attempt_id: int
    aggregated: bool
    highest: int
    top: int
    more: bool
    horizon: Horizon
    parts: list[StoredPart]


async def read_tails(connection: Connection, positions: Sequence[Since]) -> list[TailPage | None]:
    """Read a page at each position; together they hold about a megabyte of parts.

    None for a job that has no log.
    """
    jobs, numbers = [since.job_id for since in positions], [since.number for since in positions]
    lasts = [" ".join(since.lasts) for since in positions]
    pages: list[TailPage | None] = [None] * len(positions)
    rows = await connection.fetch(READ, jobs, numbers, lasts)
    for place, group in groupby(rows, itemgetter("place")):
        page = [*group]
        log = page[0]
        parts = [
            StoredPart(row["id"], row["number"], row["final"], row["content"])
            for row in page
            if row["number"] is not None
        ]
        pages[place - 1] = TailPage(
            log_id=log["log_id"],
            generation=log["generation"],
            attempt_id=log["attempt_id"],
            aggregated=log["aggregated"],
            highest=log["highest"],
            top=log["top"],
            more=log["more"] or len(parts) < (log["found"] or 0),
            horizon=Horizon.parse(log["snapshot"]),
            parts=parts,
        )
    return pages


async def late(
    connection: Connection,
    log: TailPage,
    gaps: Sequence[tuple[int, int]],
    numbers: tuple[int, int],
    after_id: int,
) -> list[StoredPart]:
    """Read a page of late parts, by id: in `gaps`, or new ones with a number within `numbers`.

    New are parts with an id above `after_id` whose bytes were not stored before. If the page is
    not empty, there may be more.
    """
    firsts, lasts = [gap[0] for gap in gaps], [gap[1] for gap in gaps]
    rows = await connection.fetch(
        LATE, log.log_id, log.attempt_id, firsts, lasts, numbers[0], numbers[1], after_id
    )
    return [StoredPart(**row) for row in rows]
