"""The sqitch project: up, down and up again, on a database of its own."""

import asyncpg
import pytest

from db import migrate
from db.connect import check_schema
from logflume.errors import ComponentError


@pytest.fixture
async def empty_url(servers, name):
    admin = await asyncpg.connect(servers.database_url("postgres"))
    await admin.execute(f"CREATE DATABASE {name}")
    yield servers.database_url(name)
    await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await admin.close()


async def relations(url: str) -> set[str]:
    connection = await asyncpg.connect(url)
    try:
        rows = await connection.fetch(
            "SELECT relname FROM pg_class WHERE relnamespace IN ('public'::regnamespace)"
            " UNION SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace"
            " UNION SELECT nspname FROM pg_namespace WHERE nspname = 'partman'"
        )
    finally:
        await connection.close()
    return {row["relname"] for row in rows}


async def test_up_and_down_and_up_again(empty_url):
    migrate.deploy(empty_url)
    migrate.run("verify", empty_url)
    first = await relations(empty_url)
    assert {"logs", "log_attempts", "log_parts", "content_parts", "open_attempts"} <= first
    migrate.run("revert", empty_url, "-y")
    assert await relations(empty_url) == set()
    migrate.deploy(empty_url)
    migrate.deploy(empty_url)  # nothing to do, and fine
    migrate.run("verify", empty_url)
    assert await relations(empty_url) == first


async def test_parts_are_partitioned_by_day_from_the_first_migration_on(database_url):
    connection = await asyncpg.connect(database_url)
    bounds = await connection.fetch(
        "SELECT pg_get_expr(relpartbound, oid) AS bound FROM pg_class"
        " WHERE relispartition AND relkind = 'r' ORDER BY 1"
    )
    config = await connection.fetchrow(
        "SELECT partition_interval::interval = '1 day' AS daily, retention FROM partman.part_config"
    )
    await connection.close()
    assert config
    assert len(bounds) >= 5
    assert [row["bound"] for row in bounds].count("DEFAULT") == 1
    assert (config["daily"], config["retention"]) == (True, None)


def test_a_wrong_password_is_one_line_without_it(servers):
    url = servers.database_url("logflume").replace(servers.secrets["password"], "hush-hush")
    with pytest.raises(ComponentError) as caught:
        migrate.deploy(url)
    assert "hush-hush" not in str(caught.value)
    assert "\n" not in str(caught.value)


async def test_a_user_who_may_not_see_the_schema_is_told_so(pool, database_url, name):
    role = f"poor_{name}"
    await pool.execute(f"CREATE ROLE {role}")
    as_role = {"role": role}
    async with asyncpg.create_pool(database_url, min_size=1, server_settings=as_role) as poor:
        with pytest.raises(ComponentError, match=r"denied.*LOGFLUME_DATABASE__URL"):
            await check_schema(poor)
    await pool.execute(f"DROP ROLE {role}")
