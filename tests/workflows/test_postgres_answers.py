"""Whatever Postgres answers to a worker's statements, the log is exact in the end."""

from dataclasses import replace

import pytest

from tests.support.driver import OPTIONS
from tests.support.postgres_faults import SAYS

# Each statement that changes a log's row succeeds only at the third try, counted by a sequence.
TROUBLE = """
CREATE FUNCTION trouble_{job_id}() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN IF nextval('tries_{job_id}') % 3 <> 0 THEN {what}; END IF; RETURN NEW; END $$;
CREATE SEQUENCE tries_{job_id};
CREATE TRIGGER trouble_{job_id} BEFORE UPDATE ON logs FOR EACH ROW
WHEN (NEW.job_id = {job_id}) EXECUTE FUNCTION trouble_{job_id}();
"""


@pytest.fixture
def options():
    return replace(OPTIONS, purge_seconds=60)


async def test_updates_that_postgres_refuses_are_retried(driver, numbers):
    logs = {name: replace(driver, job_id=next(numbers)) for name in SAYS}
    for name, log in logs.items():
        await log.whole_log(b"precious")
        await log.pool.execute(TROUBLE.format(job_id=log.job_id, what=SAYS[name]))
    for name, log in logs.items():
        outcome = await log.result()
        row = await log.row()
        assert (log.archived(), outcome.bytes) == (b"precious", 8), name
        assert row.archive_verified and row.purged_at, name
        tries = await log.pool.fetchval(f"SELECT last_value FROM tries_{log.job_id}")
        assert tries == 3 * 4  # aggregated, archiving, verified, purged


async def test_a_log_that_postgres_cannot_hold_is_stuck_without_retries(driver):
    await driver.pool.execute(
        "CREATE FUNCTION too_large() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE program_limit_exceeded USING MESSAGE = 'too large'; END $$;"
        "CREATE TRIGGER too_large BEFORE UPDATE ON logs FOR EACH ROW"
        " WHEN (NEW.content IS NOT NULL) EXECUTE FUNCTION too_large()"
    )
    await driver.whole_log(b"precious")
    await driver.sleep(driver.options.settle_seconds + 1)
    state = await driver.until_phase("stuck")
    assert state.last_error == f"aggregate: ContentTooLarge: job {driver.job_id}: too large"
    await driver.pool.execute("DROP TRIGGER too_large ON logs")
    await driver.archive_again()
    await driver.result()
    assert driver.archived() == b"precious"
