"""The sqitch project: deploy, verify, revert, deploy; and verify notices whatever is broken."""

import re

import asyncpg
import pytest

from db import migrate
from db.connect import check_schema
from logflume.errors import ComponentError

# One statement per object, generated from the catalog of a deployed schema.
BREAK_TABLES = """
SELECT format('DROP %s %s CASCADE', CASE relkind WHEN 'v' THEN 'VIEW' WHEN 'i' THEN 'INDEX'
    WHEN 'S' THEN 'SEQUENCE' WHEN 'c' THEN 'TYPE' ELSE 'TABLE' END, c.oid::regclass)
FROM pg_class c
WHERE relnamespace = 'public'::regnamespace
    AND (NOT relispartition OR c.oid = 'log_parts_default'::regclass)
    AND relkind IN ('r', 'p', 'v', 'i', 'S', 'c')
    AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = c.oid)
    AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = c.oid AND deptype = 'i' AND relkind = 'S')
"""
BREAK_COLUMNS = """
SELECT unnest(ARRAY[
    CASE WHEN attrelid <> 'log_parts'::regclass OR attname <> 'created_at'  -- its partition key
        THEN format('ALTER TABLE %s DROP COLUMN %I CASCADE', attrelid::regclass, attname) END,
    CASE WHEN atthasdef
        THEN format('ALTER TABLE %s ALTER %I DROP DEFAULT', attrelid::regclass, attname) END,
    CASE WHEN attidentity <> ''
        THEN format('ALTER TABLE %s ALTER %I DROP IDENTITY', attrelid::regclass, attname) END,
    CASE WHEN attname = 'content'
        THEN format('ALTER TABLE %s ALTER %I SET STORAGE MAIN', attrelid::regclass, attname) END
])
FROM pg_attribute JOIN pg_class c ON c.oid = attrelid
WHERE relnamespace = 'public'::regnamespace AND NOT relispartition AND relkind IN ('r', 'p')
    AND attnum > 0 AND NOT attisdropped
"""
BREAK_CONSTRAINTS = """
SELECT format('ALTER TABLE %s DROP CONSTRAINT %I CASCADE', conrelid::regclass, conname)
FROM pg_constraint JOIN pg_class c ON c.oid = conrelid
WHERE connamespace = 'public'::regnamespace AND NOT relispartition
"""
# Dropped, and replaced by one that does nothing.
BREAK_FUNCTIONS = """
SELECT unnest(ARRAY[
    format('DROP FUNCTION %s CASCADE', oid::regprocedure),
    format('CREATE OR REPLACE FUNCTION %s(%s) RETURNS %s LANGUAGE plpgsql SECURITY %s AS %L',
        proname, pg_get_function_arguments(oid), pg_get_function_result(oid),
        CASE WHEN prosecdef THEN 'DEFINER' ELSE 'INVOKER' END,
        CASE WHEN proretset OR prorettype = 'void'::regtype
            THEN 'BEGIN RETURN; END' ELSE 'BEGIN RETURN NULL; END' END)
])
FROM pg_proc WHERE pronamespace = 'public'::regnamespace
"""
BREAK_GRANTS = """
SELECT format('REVOKE %s %s ON %s FROM PUBLIC, %s',
    a.privilege_type, o.columns, o.name, a.grantee::regrole)
FROM (
    SELECT relacl, '', CASE relkind WHEN 'S' THEN 'SEQUENCE ' ELSE 'TABLE ' END || oid::regclass
    FROM pg_class WHERE relnamespace IN ('public'::regnamespace, 'sqitch'::regnamespace)
        AND (NOT relispartition OR oid = 'log_parts_default'::regclass)
    UNION ALL
    SELECT attacl, format('(%I)', attname), attrelid::regclass::text FROM pg_attribute
    UNION ALL
    SELECT proacl, '', 'FUNCTION ' || oid::regprocedure FROM pg_proc
    UNION ALL
    SELECT nspacl, '', 'SCHEMA ' || nspname FROM pg_namespace
) o (acl, columns, name), aclexplode(o.acl) a
WHERE a.grantee::regrole::text LIKE 'logflume\\_%'
UNION ALL
SELECT format('REVOKE %s ON DATABASE %I FROM PUBLIC, logflume_worker', v.name, current_database())
FROM (VALUES ('CONNECT'), ('TEMPORARY')) v (name)
"""
DROP_TODAY = """
DO $$ BEGIN EXECUTE (
    SELECT format('DROP TABLE %s', name) FROM log_partitions
    WHERE "begin" <= now() AND now() < "end"
); END $$
"""
BREAK = (BREAK_TABLES, BREAK_COLUMNS, BREAK_CONSTRAINTS, BREAK_FUNCTIONS, BREAK_GRANTS)
BREAK_OTHERS = [
    DROP_TODAY,
    "DROP EXTENSION pg_partman CASCADE",
    "DELETE FROM partman.part_config",
    "UPDATE partman.part_config SET infinite_time_partitions = false",
    "UPDATE partman.part_config SET retention = '30 days'",
    "UPDATE partman.part_config SET control = 'id'",
    "GRANT EXECUTE ON FUNCTION drop_partition TO PUBLIC",
    "GRANT SELECT ON log_parts TO logflume_drain",
]


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


async def test_deploy_revert_deploy_again_and_verify(empty_url):
    migrate.deploy(empty_url)  # verifies each change
    first = await relations(empty_url)
    assert {"logs", "log_attempts", "log_parts", "content_parts", "open_attempts"} <= first
    migrate.run("revert", empty_url, "-y")
    assert await relations(empty_url) == set()
    migrate.deploy(empty_url)
    migrate.deploy(empty_url)  # idempotent
    assert await relations(empty_url) == first
    migrate.run("verify", empty_url)
    connection = await asyncpg.connect(empty_url)
    await connection.execute("DROP FUNCTION announce_parts")
    await connection.close()
    with pytest.raises(ComponentError, match="sqitch verify failed"):
        migrate.run("verify", empty_url)


async def is_refused(connection: asyncpg.Connection, broken: str, scripts: list[str]) -> bool:
    """Whether one of the verify scripts fails after this statement; both are rolled back."""
    transaction = connection.transaction()
    await transaction.start()
    try:
        await connection.execute(broken)
        for script in scripts:
            await connection.execute("SAVEPOINT script")
            try:
                await connection.execute(script)
            except asyncpg.PostgresError:
                return True
            await connection.execute("ROLLBACK TO script")
        return False
    finally:
        await transaction.rollback()


@pytest.mark.timeout(240)
async def test_verify_fails_whatever_is_dropped_or_broken(database_url):
    deploy, verify = migrate.PROJECT / "deploy", migrate.PROJECT / "verify"
    creators = {
        name: path.stem
        for path in deploy.glob("*.sql")
        for name in re.findall(r"\bCREATE [A-Z]+ (\w+)", path.read_text())
    }
    # In one transaction with what breaks the schema.
    scripts = {
        path.stem: path.read_text().replace("\nBEGIN;\n", "\n").replace("\nROLLBACK;\n", "\n")
        for path in verify.glob("*.sql")
    }
    connection = await asyncpg.connect(database_url)
    try:
        assert not await is_refused(connection, "SELECT", [*scripts.values()])
        statements = [*BREAK_OTHERS]
        for query in BREAK:
            statements += [row[0] for row in await connection.fetch(query) if row[0]]
        assert len(statements) > 250
        undetected = []
        for statement in statements:
            # The script that most likely notices it goes first.
            object_name = re.search(r"(?:TABLE|VIEW|INDEX|TYPE|FUNCTION) (\w+)", statement)
            creator = creators.get(object_name[1]) if object_name else None
            likely = "roles" if statement.startswith(("REVOKE", "GRANT")) else creator
            order = sorted(scripts, key=lambda name: name != likely)
            if not await is_refused(connection, statement, [scripts[name] for name in order]):
                undetected.append(statement)
        assert undetected == []
    finally:
        await connection.close()


async def test_a_change_that_was_reworked_counts_once_per_rework(pool, tmp_path, monkeypatch):
    await check_schema(pool)
    plan = (migrate.PROJECT / "sqitch.plan").read_text()
    (tmp_path / "sqitch.plan").write_text(plan + "streams [streams@v0.1.0] 2026-12-01T00:00:00Z\n")
    monkeypatch.setattr("db.connect.__file__", str(tmp_path / "connect.py"))
    with pytest.raises(ComponentError, match="lacks streams of"):
        await check_schema(pool)


async def test_parts_are_partitioned_by_day(database_url):
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


def test_a_wrong_password_is_reported_in_one_line_without_it(servers):
    url = servers.database_url("logflume").replace(servers.secrets["password"], "hush-hush")
    with pytest.raises(ComponentError) as caught:
        migrate.deploy(url)
    assert "hush-hush" not in str(caught.value)
    assert "\n" not in str(caught.value)


async def test_a_user_without_access_to_the_schema_gets_an_error(pool, database_url, name):
    role = f"poor_{name}"
    await pool.execute(f"CREATE ROLE {role}")
    as_role = {"role": role}
    async with asyncpg.create_pool(database_url, min_size=1, server_settings=as_role) as poor:
        with pytest.raises(ComponentError, match=r"denied.*LOGFLUME_DATABASE__URL"):
            await check_schema(poor)
    await pool.execute(f"DROP ROLE {role}")
