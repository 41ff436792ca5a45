"""Errors from Postgres: a message is acknowledged only once it is stored."""

import asyncpg
import pytest
from prometheus_client import REGISTRY

from tests.support.broker import message, publish
from tests.support.parts import stored_content
from tests.support.postgres_faults import SAYS
from tests.support.services import draining
from tests.support.waiting import until

# Tries are counted by a sequence, which no rollback takes back.
TROUBLE = """
CREATE SEQUENCE tries;
CREATE FUNCTION trouble() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN PERFORM nextval('tries'); {}; RETURN NEW; END $$;
CREATE {} log_parts {} FOR EACH ROW EXECUTE FUNCTION trouble();
"""
WHEN = {
    "while it writes": ("TRIGGER trouble BEFORE INSERT ON", ""),
    "when it commits": (
        "CONSTRAINT TRIGGER trouble AFTER INSERT ON",
        "DEFERRABLE INITIALLY DEFERRED",
    ),
}
CALM = "DROP SEQUENCE tries; DROP FUNCTION trouble CASCADE"


@pytest.fixture
def settings(amqp_settings):
    return amqp_settings


@pytest.mark.parametrize("when", WHEN.values(), ids=WHEN.keys())
async def test_nothing_is_acked_until_postgres_stores_it(settings, channel, pool, numbers, when):
    async with draining(settings) as drain:
        for what in SAYS.values():
            job_id = next(numbers)
            await pool.execute(TROUBLE.format(what, *when))
            await publish(channel, *(message(job_id, n, f"{n},") for n in range(10)))

            async def was_tried() -> bool:
                return await pool.fetchval("SELECT last_value FROM tries") > 2

            await until(was_tried)
            assert drain._held.messages == 10
            await pool.execute(CALM)
            await until(lambda: is_acked(drain))
            assert await stored_content(pool, job_id) == b"0,1,2,3,4,5,6,7,8,9,"
    assert await pool.fetchval("SELECT count(*) FROM log_parts") == 10 * len(SAYS)


async def is_acked(drain) -> bool:
    return drain._held.messages == 0


def failures() -> float:
    return REGISTRY.get_sample_value("logflume_drain_flush_failures_total") or 0


END_SESSIONS = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = $1 AND pid <> pg_backend_pid()
"""


@pytest.mark.parametrize(
    ("begin", "end"),
    [
        ("SET default_transaction_read_only = on", "RESET default_transaction_read_only"),
        ("ALLOW_CONNECTIONS false", "ALLOW_CONNECTIONS true"),
    ],
    ids=["read-only", "closed"],
)
async def test_a_database_that_was_read_only_is_written_again(
    servers, settings, channel, pool, name, job_id, begin, end
):
    """Sessions opened in between stay read-only, so the pool must close them."""
    admin = await asyncpg.connect(servers.database_url("postgres"))
    async with draining(settings) as drain:
        await admin.execute(f"ALTER DATABASE {name} {begin}")
        await admin.fetch(END_SESSIONS, name)
        before = failures()
        await publish(channel, message(job_id, 0, "all"))

        async def was_tried() -> bool:
            return failures() > before + 2

        await until(was_tried)
        assert drain._held.messages == 1
        await admin.execute(f"ALTER DATABASE {name} {end}")
        await until(lambda: is_acked(drain))
    assert await stored_content(pool, job_id) == b"all"
    await admin.close()
