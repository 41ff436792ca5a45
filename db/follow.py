"""The one query behind every live reader of a log: what came since a cursor."""

from collections.abc import Sequence

import msgspec

from db.connect import Connection
from domain import StoredPart

# In the order of number: a window of numbers from the first there is, at most a megabyte of it (a
# part of many megabytes comes alone); `last` parts, but those known, only after every numbered one.
LOOK = """
WITH l AS MATERIALIZED (
    SELECT l.id, l.generation, coalesce(a.id, 0) AS attempt_id,
        l.aggregated_at IS NOT NULL AND NOT l.late_parts AS aggregated,
        CASE WHEN $2 < 0 THEN -1 ELSE (
            SELECT min(p.number) FROM log_parts p
            WHERE p.log_id = l.id AND p.attempt_id = a.id AND p.number BETWEEN $2 AND 2147483646
        ) END AS first,
        coalesce((
            SELECT max(p.number) FROM log_parts p
            WHERE p.log_id = l.id AND p.attempt_id = a.id AND p.number BETWEEN 0 AND 2147483646
        ), -1) AS highest
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
        WHERE c.number = 2147483647
            AND left(encode(sha256(c.content), 'hex'), 12) <> ALL ($3::text[])
            AND coalesce(l.first::bigint + 500 > l.highest, true)
    ) p
)
SELECT l.id, l.generation, l.attempt_id, l.aggregated, l.highest,
    (SELECT last_value FROM log_parts_id_seq) AS top,
    coalesce(l.first::bigint + 500 <= l.highest, false) AS more, n.found,
    n.id, n.number, n.final, n.content
FROM l LEFT JOIN news n ON n.before < 1048576
ORDER BY n.number, n.created_at, n.id
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
    parts: list[StoredPart]


async def look(
    connection: Connection, job_id: int, number: int, lasts: Sequence[str] = ()
) -> Look | None:
    """Read a job's parts from `number` on, about a megabyte at most; None where it has no log.

    `lasts` are the first 12 digits of the SHA-256 of `last` parts that are known.
    """
    rows = await connection.fetch(LOOK, job_id, number, lasts)
    if not rows:
        return None
    parts = [StoredPart(*tuple(row)[8:]) for row in rows if row["number"] is not None]
    *log, more, count = tuple(rows[0])[:8]
    log_id, generation, attempt_id, aggregated, highest, top = log
    more = more or len(parts) < (count or 0)
    return Look(log_id, generation, attempt_id, aggregated, highest, top, more, parts)


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
