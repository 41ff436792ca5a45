"""The timed steps of verified logs."""

from collections.abc import Sequence

from db.connect import Connection
from logflume.markers import Step

DELETE = "DELETE FROM log_timings WHERE log_id = ANY ($1)"
# Not COPY: Postgres waits for a frozen client's data without limit, with the log's row locked.
ADD = """
INSERT INTO log_timings (log_id, place, timer, event, fold, line, start_ns, finish_ns)
SELECT $1, s.place - 1, s.timer, s.event, s.fold, s.line, s.start_ns, s.finish_ns
FROM unnest($2::text[], $3::text[], $4::text[], $5::bigint[], $6::bigint[], $7::bigint[])
    WITH ORDINALITY s (timer, event, fold, line, start_ns, finish_ns, place)
"""
READ = """
SELECT timer AS id, event, fold, line, start_ns, finish_ns
FROM log_timings WHERE log_id = $1 ORDER BY place
"""


async def replace(connection: Connection, log_id: int, steps: Sequence[Step]) -> None:
    """Replace the steps of a log; inside the caller's transaction."""
    await delete(connection, [log_id])
    columns = [
        [getattr(step, name) for step in steps]
        for name in ("id", "event", "fold", "line", "start_ns", "finish_ns")
    ]
    if steps:
        await connection.execute(ADD, log_id, *columns)


async def delete(connection: Connection, log_ids: Sequence[int]) -> None:
    """Delete the steps of logs whose text is deleted: their names are part of the text."""
    await connection.execute(DELETE, log_ids)


async def steps_of(connection: Connection, log_id: int) -> list[Step]:
    """List a log's timed steps, in the order they ended."""
    return [Step(**row) for row in await connection.fetch(READ, log_id)]
