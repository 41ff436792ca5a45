"""A log imported from travis-logs, and its lifecycle after that."""

import asyncio

import pytest

from db.pending import find_pending
from tests.support import processes
from tests.support.driver import OPTIONS
from tests.support.processes import LOGFLUME, Done
from tests.support.services import serving
from tests.support.travis_logs import THEN, travis_logs
from workflows.client.logs import LogWorkflows

SECRET = "xyzzy"


@pytest.fixture
def logflume(driver, tmp_path):
    """The command on the test's database."""
    url = driver.settings.database.url.get_secret_value()

    async def run(*arguments: str, target: str = url) -> Done:
        command = (LOGFLUME, "import", "travis-logs", *arguments)
        env = {"LOGFLUME_DATABASE__URL": target}
        return await asyncio.to_thread(processes.run, *command, env=env, cwd=tmp_path)

    return run


async def test_an_imported_log_is_archived_and_purged(driver, logflume, servers, name):
    job_id = driver.job_id
    async with travis_logs(servers, f"{name}_travis") as travis:
        log_id = await travis.log(job_id, "Grüße\n", removed_at=THEN, removed_by=7)
        await travis.part(log_id, 0, "late\n", final=True)
        done = await logflume("--from", travis.url)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == "1 logs in travis-logs: 1 added (parts)\n"
        several = travis.url.replace("@", "@127.0.0.1:1,")
        done = await logflume("--from", several, "--verify")
        assert (done.returncode, done.stdout) == (0, "1 logs in travis-logs: 1 same (parts)\n")

    async with driver.pool.acquire() as connection:
        [found] = await find_pending(connection, 0, 0, 0, 10)
    workflows = LogWorkflows(driver.client, driver.task_queue, OPTIONS)
    assert await workflows.start(found.job_id, found.heard_at, found.archived_at)
    outcome = await driver.result()
    assert (outcome.bytes, outcome.missing_parts) == (13, 0)
    assert driver.archived() == "Grüße\nlate\n".encode()
    async with serving(driver.settings, driver.pool) as client:
        body = (await client.get(f"/logs/{log_id}?by=id")).json()
    assert (body["id"], body["job_id"], body["content"]) == (log_id, job_id, "Grüße\nlate\n")
    assert (body["removed_by_id"], body["removed_at"][:16]) == (7, THEN.isoformat()[:16])
    assert body["archive_verified"] and body["archived_at"] and body["purged_at"]
    assert body["created_at"][:16] == THEN.isoformat()[:16]


async def test_errors_are_one_line_without_the_password(logflume, driver, servers, name):
    ours = driver.settings.database.url.get_secret_value()
    unreachable = f"postgresql://stranger:{SECRET}@127.0.0.1:1/logs"
    async with travis_logs(servers, f"{name}_travis") as travis:
        await travis.connection.execute("ALTER TABLE logs DROP COLUMN purged_at")
        for source, target, words in (
            (unreachable, ours, "127.0.0.1:1/logs"),
            (f"postgresql://a:{SECRET}/b@localhost/logs", ours, "with %XX"),
            (f"mysql://a:{SECRET}@localhost/logs", ours, "postgresql://"),
            (ours, ours, "travis-logs database"),
            (travis.url, ours, "lacks logs.purged_at"),
            (travis.url, servers.database_url("postgres"), "logflume db deploy"),
            (travis.url, unreachable, "127.0.0.1:1/logs"),
        ):
            done = await logflume("--from", source, target=target)
            assert done.returncode != 0
            assert words in done.stderr
            assert "Traceback" not in done.stderr
            assert SECRET not in done.stdout + done.stderr
