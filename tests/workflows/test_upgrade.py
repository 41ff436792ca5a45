"""Deploys a changed workflow while logs run, as docs/upgrading.md describes."""

import asyncio
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer
from temporalio.workflow import NondeterminismError

from logflume.archive.store import key
from tests.support.options import lifecycle_options
from tests.support.parts import part, store_parts
from tests.support.processes import LOGFLUME, running
from tests.support.s3 import s3
from tests.support.upgraded_worker import Careless, Upgraded
from tests.support.waiting import until
from workflows.client.connection import connect_temporal
from workflows.client.logs import LogWorkflows
from workflows.lifecycle_types import (
    LIFECYCLE_QUERY,
    Lifecycle,
    Outcome,
    PartsStored,
    workflow_id,
)

CLI = Path(sys.executable).parent / "temporal"
OPTIONS = lifecycle_options(settle_seconds=0.2, gap_seconds=0.2, purge_seconds=0.2)
KEEP = lifecycle_options(settle_seconds=0.2, gap_seconds=0.2, purge_seconds=3600)


class Logs:
    """The logs of one test: stores parts, signals their workflows and queries them."""

    def __init__(self, client, settings, pool):
        self.client, self.settings, self.pool = client, settings, pool

    async def store(self, job_id, *parts, options=OPTIONS):
        await store_parts(self.pool, parts)
        size, final = sum(len(one.content) for one in parts), any(one.final for one in parts)
        batch = PartsStored(len(parts), size, final=final, begun=parts[0].number == 0)
        workflows = LogWorkflows(self.client, self.settings.temporal.task_queue, options)
        await workflows.parts_stored(job_id, batch)

    def handle(self, job_id):
        return self.client.get_workflow_handle(workflow_id(job_id), result_type=Outcome)

    async def until_phase(self, job_id, phase, parts):
        async def is_so() -> bool:
            state = await self.handle(job_id).query(LIFECYCLE_QUERY, result_type=Lifecycle)
            return state.phase == phase and state.parts == parts

        await until(is_so)

    async def build_id(self, job_id):
        info = (await self.handle(job_id).describe()).raw_description.workflow_execution_info
        return info.versioning_info.deployment_version.build_id

    def archived(self, job_id):
        found = s3(self.settings).get_object(Bucket=self.settings.s3.bucket, Key=key(job_id))
        return found["Body"].read()


@pytest.fixture
async def logs(settings, pool):
    return Logs(await connect_temporal(settings.temporal), settings, pool)


@pytest.fixture
def cli(settings, tmp_path):
    """Temporal's command line, as an operator uses it."""

    async def run(*arguments: str) -> str | None:
        process = await asyncio.create_subprocess_exec(
            CLI, *arguments, "--address", settings.temporal.address,
            env={"HOME": str(tmp_path)}, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        output, _ = await process.communicate()
        return output.decode() if process.returncode == 0 else None

    return run


@pytest.fixture
def make_current(cli, name):
    """Make a version current, once its workers have registered."""

    async def make_current(*which: str) -> None:
        command = ("worker", "deployment", "set-current-version", "--yes")

        async def done() -> bool:
            return await cli(*command, "--deployment-name", name, *which) is not None

        await until(done)

    return make_current


def version(settings, name, build_id):
    worker = settings.worker.model_copy(update={"deployment": name, "build_id": build_id})
    return settings.model_copy(update={"worker": worker})


async def test_a_changed_workflow_is_deployed_while_logs_run(
    settings, logs, name, job_id, cli, make_current, tmp_path
):
    closed, receiving, verified, fresh, plain = range(job_id * 100, job_id * 100 + 5)
    old, new = version(settings, name, "1.0"), version(settings, name, "1.1")
    async with AsyncExitStack() as stack:
        async with running(old, tmp_path / "old", LOGFLUME, "worker", started="worker_started"):
            await make_current("--build-id", "1.0")
            await logs.store(closed, part(closed, 0, b"closed", final=True))
            await logs.store(receiving, part(receiving, 0, b"started by the old, "))
            whole = part(verified, 0, b"verified by the old, ", final=True)
            await logs.store(verified, whole, options=KEEP)
            assert (await logs.handle(closed).result()).bytes == 6
            await logs.until_phase(receiving, "receiving", 1)
            await logs.until_phase(verified, "verified", 1)

            upgraded = (sys.executable, "-m", "tests.support.upgraded_worker")
            process = running(new, tmp_path / "new", *upgraded, started="worker_started")
            await stack.enter_async_context(process)
            assert await logs.build_id(receiving) == "1.0"
            await make_current("--build-id", "1.1")
        # The old workers are gone. Their runs continue, patched or not; new runs use the new code.
        await logs.store(receiving, part(receiving, 1, b"ended by the new", final=True))
        await logs.store(verified, part(verified, 1, b"late", final=True))
        await logs.store(fresh, part(fresh, 0, b"fresh", final=True))
        await logs.handle(receiving).result()
        await logs.handle(fresh).result()
        await logs.until_phase(verified, "verified", 2)
        for each in (receiving, verified, fresh):
            assert await logs.build_id(each) == "1.1"
    # And back to workers without a version, which get work once they are made current.
    async with running(settings, tmp_path / "plain", LOGFLUME, "worker", started="worker_started"):
        await make_current("--unversioned")
        await logs.store(plain, part(plain, 0, b"plain", final=True))
        await logs.handle(plain).result()
    assert logs.archived(plain) == b"plain"
    assert logs.archived(closed) == b"closed"
    assert logs.archived(receiving) == b"started by the old, ended by the new"
    assert logs.archived(verified) == b"verified by the old, late"
    assert logs.archived(fresh) == b"fresh"

    patched = {}
    for each in (closed, receiving, verified, fresh):
        shown = await cli("workflow", "show", "--workflow-id", workflow_id(each), "-o", "json")
        history = WorkflowHistory.from_json(workflow_id(each), shown)
        await Replayer(workflows=[Upgraded]).replay_workflow(history)
        patched[each] = "core_patch" in shown
        if each in (closed, verified):
            with pytest.raises(NondeterminismError):
                await Replayer(workflows=[Careless]).replay_workflow(history)
    assert patched == {closed: False, receiving: True, verified: False, fresh: True}
