"""The one query behind every live reader of a log: what came since a cursor."""

from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

import msgspec

from db.connect import Connection
from logflume.domain import StoredPart

# For each place that is asked about, in the order of number: a window of numbers from the first
# there is, at most its share of a megabyte (a longer part comes alone); `last` parts, but those
# known, only after every numbered one. To begin costs Postgres more than several logs do.
LOOK = """
SELECT l.place, l.id, l.generation, l.attempt_id, l.aggregated, l.highest,
    (SELECT last_value FROM log_parts_id_seq) AS top,
    coalesce(l.first::bigint + 500 <= l.highest, false) AS more, pg_current_snapshot()::text,
    n.found, n.id, n.number, n.final, n.content
FROM (
    SELECT s.place, s.lasts, l.id, l.generation, coalesce(a.id, 0) AS attempt_id,
        l.aggregated_at IS NOT NULL AND NOT l.late_parts AS aggregated,
        CASE WHEN s.number < 0 THEN -1 ELSE (
            SELECT min(p.number) FROM log_parts p
            WHERE p.log_id = l.id AND p.attempt_id = a.id
                AND p.number BETWEEN s.number AND 2147483646
        ) END AS first,
        coalesce((
            SELECT max(p.number) FROM log_parts p
            WHERE p.log_id = l.id AND p.attempt_id = a.id AND p.number BETWEEN 0 AND 2147483646
        ), -1) AS highest
    FROM unnest($1::bigint[], $2::integer[], $3::text[])
        WITH ORDINALITY s (job_id, number, lasts, place)
    JOIN logs l ON l.job_id = s.job_id
    LEFT JOIN LATERAL log_attempt(l.id) a (id) ON true
    OFFSET 0
) l LEFT JOIN LATERAL (
    SELECT p.id, p.number, p.created_at, p.final, p.content, count(*) OVER () AS found,
        sum(octet_length(p.content)) OVER (ORDER BY p.number, p.created_at, p.id)
            - octet_length(p.content) AS before
    FROM (
        SELECT * FROM content_parts(l.id, l.attempt_id) c
        WHERE c.number >= l.first AND c.number::bigint < l.first::bigint + 500
            AND c.number < 2147483647
        UNION ALL
        SELECT * FROM content_parts(l.id, l.attempt_id) c
        WHERE c.number = 2147483647
            AND left(encode(sha256(c.content), 'hex'), 12) <> ALL (string_to_array(l.lasts, ' '))
            AND coalesce(l.first::bigint + 500 > l.highest, true)
    ) p
) n ON n.before < 1048576 / cardinality($1)
ORDER BY l.place, n.number, n.created_at, n.id
"""
# Below a cursor: numbers in its gaps, and numbers that hold other bytes by now. A part that was
# only delivered again is neither. By id, a page at a time, about a megabyte.
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
    """Which transactions a look saw: those below `end` that were not `running`."""

    end: int
    running: frozenset[int]

    @classmethod
    def parse(cls, snapshot: str) -> "Horizon":
        """Read Postgres' form of a snapshot, `xmin:xmax:xid,xid`."""
        _, end, running = snapshot.split(":")
        return cls(int(end), frozenset(map(int, filter(None, running.split(",")))))

    def saw(self, transaction: int) -> bool:
        """Whether what it wrote was there already."""
        return transaction < self.end and transaction not in self.running


class Since(NamedTuple):
    """Where to look: a job's parts from `number` on.

    `lasts` are the first 12 digits of the SHA-256 of `last` parts that are known.
    """

    job_id: int
    number: int
    lasts: Sequence[str] = ()


class Look(msgspec.Struct, frozen=True):
    """What a reader found: which log it is now, and its parts from the number asked for on.

    `aggregated`: no more is expected of it. `highest`: the highest number it has, -1 where none.
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


async def look(connection: Connection, places: Sequence[Since]) -> list[Look | None]:
    """Look at several places, of which each may have its share of about a megabyte of parts.

    None for a job that has no log.
    """
    jobs, numbers = [one.job_id for one in places], [one.number for one in places]
    lasts = [" ".join(one.lasts) for one in places]
    looks: list[Look | None] = [None] * len(places)
    rows = await connection.fetch(LOOK, jobs, numbers, lasts)
    for place, group in groupby(map(tuple, rows), itemgetter(0)):
        found = [*group]
        *log, more, snapshot, count = found[0][1:10]
        log_id, generation, attempt_id, aggregated, highest, top = log
        parts = [StoredPart(*row[10:]) for row in found if row[11] is not None]
        more = more or len(parts) < (count or 0)
        horizon = Horizon.parse(snapshot)
        looks[place - 1] = Look(
            log_id, generation, attempt_id, aggregated, highest, top, more, horizon, parts
        )
    return looks


async def late(
    connection: Connection,
    log: Look,
    gaps: Sequence[tuple[int, int]],
    numbers: tuple[int, int],
    after_id: int,
) -> list[StoredPart]:
    """Read parts that came late, by id, a page of them: in `gaps`, or new ones between `numbers`.

    New are parts with an id above `after_id` whose bytes were not there before. There may be more
    where there are any.
    """
    firsts, lasts = [gap[0] for gap in gaps], [gap[1] for gap in gaps]
    rows = await connection.fetch(
        LATE, log.log_id, log.attempt_id, firsts, lasts, numbers[0], numbers[1], after_id
    )
    return [StoredPart(*row) for row in rows]
