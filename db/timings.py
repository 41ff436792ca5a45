"""The timed steps of verified logs."""

from collections.abc import Sequence

from db.connect import Connection
from logflume.markers import Step

DELETE = "DELETE FROM log_timings WHERE log_id = ANY ($1)"
COLUMNS = ("log_id", "place", "timer", "event", "fold", "line", "start_ns", "finish_ns")
READ = """
SELECT timer AS id, event, fold, line, start_ns, finish_ns
FROM log_timings WHERE log_id = $1 ORDER BY place
"""


async def replace(connection: Connection, log_id: int, steps: Sequence[Step]) -> None:
    """Replace the steps of a log; inside the caller's transaction."""
    await delete(connection, [log_id])
    records = [
        (log_id, place, step.id, step.event, step.fold, step.line, step.start_ns, step.finish_ns)
        for place, step in enumerate(steps)
    ]
    if records:
        await connection.copy_records_to_table("log_timings", records=records, columns=COLUMNS)


async def delete(connection: Connection, log_ids: Sequence[int]) -> None:
    """Delete the steps of logs whose text is deleted: their names are part of the text."""
    await connection.execute(DELETE, log_ids)


async def steps_of(connection: Connection, log_id: int) -> list[Step]:
    """List a log's timed steps, in the order they ended."""
    return [Step(**row) for row in await connection.fetch(READ, log_id)]
