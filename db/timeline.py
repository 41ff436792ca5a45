"""The timeline of Postgres: another one after a failover or the restore of a backup."""

from db.connect import Connection

# From the position in the WAL: the control file names the new timeline only after a checkpoint.
TIMELINE = """
SELECT format('%s/%s', system_identifier,
    ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::integer)
FROM pg_control_system()
"""


async def read_timeline(connection: Connection) -> str:
    """Read the system identifier and the number of the timeline.

    Raises:
        asyncpg.PostgresError: the server is a standby, or its provider permits no such query.
    """
    timeline: str = await connection.fetchval(TIMELINE)
    return timeline
