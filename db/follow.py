"""The one query behind every live reader of a log: what came since a cursor."""

import msgspec

from db.connect import Connection
from domain import StoredPart

# In the order of number: a window of numbers from the first there is, at most a megabyte of it (a
# part of many megabytes comes alone); `last` parts only after every numbered one.
LOOK = """
WITH l AS MATERIALIZED (
    SELECT l.id, l.generation, coalesce(a.id, 0) AS attempt_id,
        l.aggregated_at IS NOT NULL AND NOT l.late_parts AS aggregated,
        CASE WHEN $2 < 0 THEN -1 ELSE (
            SELECT min(p.number) FROM log_parts p
            WHERE p.log_id = l.id AND p.attempt_id = a.id AND p.number BETWEEN $2 AND 2147483646
        ) END AS first,
        (
            SELECT max(p.number) FROM log_parts p
            WHERE p.log_id = l.id AND p.attempt_id = a.id AND p.number BETWEEN 0 AND 2147483646
        ) AS highest
    FROM logs l LEFT JOIN LATERAL log_attempt(l.id) a (id) ON true
    WHERE l.job_id = $1
), news AS (
    SELECT p.id, p.number, p.created_at, p.final, p.content, count(*) OVER () AS found,
        sum(octet_length(p.content)) OVER (ORDER BY p.number, p.created_at, p.id)
            - octet_length(p.content) AS before
    FROM l, LATERAL (
        SELECT * FROM content_parts(l.id, l.attempt_id) c
        WHERE c.number >= l.first AND c.number::bigint < l.first::bigint + 500
            AND c.number < 2147483647
        UNION ALL
        SELECT * FROM content_parts(l.id, l.attempt_id) c
        WHERE c.number = 2147483647 AND c.id > $3
            AND coalesce(l.first::bigint + 500 > l.highest, true)
    ) p
)
SELECT l.id, l.generation, l.attempt_id, l.aggregated,
    coalesce(l.first::bigint + 500 <= l.highest, false) AS more, n.found,
    n.id, n.number, n.final, n.content
FROM l LEFT JOIN news n ON n.before < 1048576
ORDER BY n.number, n.created_at, n.id
"""
# Below the cursor: numbers that were missing, and numbers that hold other bytes by now. A part
# that was only delivered again is neither.
LATE = """
SELECT n.id, n.number, n.final, n.content
FROM content_parts($1, $2) n
WHERE n.number = ANY ($3)
    OR (n.number BETWEEN $4 AND $5 AND n.id > $6 AND NOT EXISTS (
        SELECT FROM log_parts o
        WHERE o.log_id = $1 AND o.attempt_id = n.attempt_id AND o.number = n.number
            AND o.id <= $6 AND o.content = n.content AND o.final = n.final
    ))
ORDER BY n.id
"""


class Look(msgspec.Struct, frozen=True):
    """What a reader found: which log it is now, and its parts from the number asked for on.

    `aggregated`: no more is expected of it. `more`: there are more parts than these.
    """

    log_id: int
    generation: int
    attempt_id: int
    aggregated: bool
    more: bool
    parts: list[StoredPart]


async def look(connection: Connection, job_id: int, number: int, last_id: int = 0) -> Look | None:
    """Read a job's parts from `number` on, about a megabyte at most; None where it has no log.

    `last` parts come where their id is above `last_id`.
    """
    rows = await connection.fetch(LOOK, job_id, number, last_id)
    if not rows:
        return None
    parts = [StoredPart(*tuple(row)[6:]) for row in rows if row["number"] is not None]
    log_id, generation, attempt_id, aggregated, more, count = tuple(rows[0])[:6]
    more = more or len(parts) < (count or 0)
    return Look(log_id, generation, attempt_id, aggregated, more, parts)


async def late(
    connection: Connection,
    log: Look,
    missing: list[int],
    numbers: tuple[int, int],
    after_id: int,
) -> list[StoredPart]:
    """Read parts that came late: of `missing` numbers, or new ones between both `numbers`.

    New are parts with an id above `after_id` whose bytes were not there before.
    """
    rows = await connection.fetch(
        LATE, log.log_id, log.attempt_id, missing, numbers[0], numbers[1], after_id
    )
    return [StoredPart(*row) for row in rows]
