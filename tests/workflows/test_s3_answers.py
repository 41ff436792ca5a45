"""Whatever the store answers: a log is archived exactly, or stuck with the reason and intact."""

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest
from botocore.retries.standard import ExponentialBackoff
from temporalio.client import WorkflowExecutionStatus

from activities.logs import ArchiveActivities
from logflume.archive.store import Archive, key
from tests.support import s3_proxy
from tests.support.driver import OPTIONS, Driver, patiently
from tests.support.parts import part
from tests.support.s3_proxy import (
    ANY,
    broken_connection,
    error_response,
    false_success,
    flipped_bit,
)
from workflows import policies

SLICE = 5 * 1024 * 1024
TRIES = 2
# Faults of every request, of requests that change something, and of reads.
ANYTHING = {
    "forbidden": error_response(403, "AccessDenied"),
    "error": error_response(500, "InternalError"),
    "broken": broken_connection(done=False),
}
CHANGE = ANYTHING | {
    "no bucket": error_response(404, "NoSuchBucket"),
    "conflict": error_response(409, "OperationAborted"),
    "condition": error_response(412, "PreconditionFailed"),
    "busy": error_response(503, "SlowDown"),
    "slow": s3_proxy.slow_response,
    "done and error": error_response(500, "InternalError", done=True),
    "done and broken": broken_connection(done=True),
}
READ = ANYTHING | {
    "slow": s3_proxy.slow_response,
    "not there": error_response(404, "NoSuchKey"),
    "truncated": s3_proxy.truncated_response,
    "wrong bytes": flipped_bit(checksums=False),
    "wrong checksum": flipped_bit(checksums=True),
}
COMPLETED_WITH_AN_ERROR = b"<Error><Code>InternalError</Code><Message>injected</Message></Error>"
COMPLETED = b"<CompleteMultipartUploadResult><ETag>e</ETag></CompleteMultipartUploadResult>"
SMALL = {
    "PutObject": CHANGE | {"not durable": false_success(200), "altered": s3_proxy.altered_request},
    "HeadObject": ANYTHING | {"not there": error_response(404, "NoSuchKey")},
    "GetObject": READ,
}
SLICES = {
    "CreateMultipartUpload": {"busy": CHANGE["busy"]},
    "UploadPart": {"not durable": false_success(200)},
    "CompleteMultipartUpload": {
        "error in a success": false_success(200, COMPLETED_WITH_AN_ERROR),
        "not durable": false_success(200, COMPLETED),
        "done and broken": broken_connection(done=True),
    },
}
DELETED = {"DeleteObject": CHANGE | {"not durable": false_success(204)}}
RESTORED = {"GetObject": READ}
IN_SLICES = bytes(SLICE) + b"precious"


@pytest.fixture
async def proxy(settings):
    async with s3_proxy.s3_proxy(settings.s3.endpoint) as proxy:
        yield proxy


@pytest.fixture
def archive_activities(pool, settings, proxy):
    fields = {"endpoint": proxy.url, "slice_bytes": SLICE}
    return ArchiveActivities(pool, Archive(settings.s3.model_copy(update=fields), 8))


@pytest.fixture
def options():
    return replace(OPTIONS, archive_tries=TRIES, purge_seconds=60, idle_timeout_seconds=600)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    """Fewer tries, and no delay between those of the client."""
    few = replace(policies.ARCHIVE_RETRIES, maximum_attempts=2)
    monkeypatch.setattr(policies, "ARCHIVE_RETRIES", few)
    monkeypatch.setattr(ExponentialBackoff, "delay_amount", lambda *_: 0)


class Logs:
    """One log for each fault in a table."""

    def __init__(self, driver: Driver, proxy, numbers, table) -> None:
        self.driver = driver
        self.proxy = proxy
        self.answers = {
            f"{operation}: {name}": (operation, trouble)
            for operation, troubles in table.items()
            for name, trouble in troubles.items()
        }
        self.logs = {name: replace(driver, job_id=next(numbers)) for name in self.answers}

    def trouble(self, times: int) -> None:
        for name, (operation, trouble) in self.answers.items():
            self.proxy.trouble(key(self.logs[name].job_id), operation, trouble, times)

    async def each(self, act: Callable[[Driver], Awaitable[None]]) -> None:
        for log in self.logs.values():
            await act(log)

    async def settled(self) -> dict[str, str]:
        """Let time pass until each log is done or stuck; returns which."""
        states: dict[str, str] = {}
        while len(states) < len(self.logs):
            await patiently(lambda: self.driver.environment.sleep(60))
            for name, log in self.logs.items():
                if name in states:
                    continue
                if (await log.describe()).status != WorkflowExecutionStatus.RUNNING:
                    states[name] = "done"
                elif (state := await log.state()).phase == "stuck":
                    states[name] = state.last_error
        return states


async def archive(log: Driver) -> None:
    await log.whole_log(b"precious")


async def archive_slices(log: Driver) -> None:
    await log.whole_log(IN_SLICES)


async def clear(log: Driver) -> None:
    await log.replace(b"")


async def add(log: Driver) -> None:
    await log.store(part(log.job_id, 2, b", late"))


async def nothing(log: Driver) -> None:
    pass


# The faults, the state of the log before, the action under faults, and the object at the end.
SCENES = {
    "archived": (SMALL, nothing, archive, b"precious"),
    "in slices": (SLICES, nothing, archive_slices, IN_SLICES),
    "cleared": (DELETED, archive, clear, None),
    "restored": (RESTORED, archive, add, b"precious, late"),
}


@pytest.mark.parametrize("times", [1, TRIES], ids=["a moment", "until it is stuck"])
@pytest.mark.parametrize("operation", ["HeadObject", "DeleteObject", "GetObject"])
async def test_a_refusal_that_passes_needs_no_operator(driver, proxy, operation, times):
    await driver.whole_log(b"secret")
    await driver.result()
    await driver.pool.execute("DELETE FROM log_parts")  # like drops of their partition
    refusal = error_response(403, "ExpiredToken")
    proxy.trouble(key(driver.job_id), operation, refusal, times)
    if operation == "GetObject":
        await driver.store(part(driver.job_id, 2, b", late"))
    else:
        await driver.replace(b"")
    await driver.result()
    assert driver.archived() == (b"secret, late" if operation == "GetObject" else None)
    assert proxy.left[key(driver.job_id)] == 0


async def test_a_refused_head_names_the_code_of_the_store(driver, proxy):
    await driver.whole_log(b"secret")
    await driver.result()
    proxy.trouble(key(driver.job_id), ANY, error_response(403, "RequestTimeTooSkewed"), 1_000_000)
    await driver.replace(b"")
    await driver.sleep(60)
    state = await driver.until(lambda state: bool(state.last_error))
    assert "(RequestTimeTooSkewed)" in state.last_error
    assert "s3:ListBucket" not in state.last_error


async def is_exact(log: Driver, content: bytes | None) -> bool:
    row = await log.row()
    return log.archived() == content and (content is None or row.purged_at is not None)


async def is_intact(log: Driver) -> bool:
    """Whether the row claims nothing about the archive that is wrong."""
    row = await log.row()
    if not row.archive_verified:
        return row.purged_at is None
    return hashlib.sha256(log.archived() or b"").hexdigest() == row.content_sha256


@pytest.mark.parametrize("times", [1, 1_000_000], ids=["once", "always"])
@pytest.mark.parametrize(("table", "before", "act", "content"), SCENES.values(), ids=SCENES.keys())
async def test_a_log_is_archived_exactly_or_stuck_with_a_reason(
    driver, proxy, numbers, table, before, act, content, times
):
    logs = Logs(driver, proxy, numbers, table)
    if before is not nothing:
        await logs.each(before)
        assert set((await logs.settled()).values()) == {"done"}
        await driver.pool.execute("DELETE FROM log_parts")  # like drops of their partition
    logs.trouble(times)
    await logs.each(act)
    states = await logs.settled()
    stuck = {name: why for name, why in states.items() if why != "done"}
    for name, log in logs.logs.items():
        assert await (is_intact(log) if name in stuck else is_exact(log, content)), name
    assert all(stuck.values())
    proxy.calm()
    for name in stuck:
        await logs.logs[name].archive_again()
    assert set((await logs.settled()).values()) == {"done"}
    for name, log in logs.logs.items():
        assert await is_exact(log, content), name
