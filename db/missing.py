"""Which numbers of an attempt have not arrived, by the total that its sender announced."""

from db.connect import Connection

# A closed attempt accepts no parts, so none is missing.
MISSING = """
SELECT m.first, m.last
FROM logs l JOIN log_attempts a ON a.log_id = l.id
LEFT JOIN missing_numbers(l.id, a.id, $3) m ON a.closed_at IS NULL
WHERE l.job_id = $1 AND a.uuid = $2 AND (a.closed_at IS NOT NULL OR a.total_parts IS NOT NULL)
"""


async def missing_numbers(
    connection: Connection, job_id: int, uuid: str, most: int
) -> list[tuple[int, int]] | None:
    """Return the lowest ranges of missing numbers; None while the total is not stored."""
    rows = await connection.fetch(MISSING, job_id, uuid, most)
    if not rows:
        return None
    return [(row["first"], row["last"]) for row in rows if row["first"] is not None]
