"""Temporal's own command on the workflows of a real worker, as operators use it."""

import asyncio
import json
import sys
from base64 import b64decode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from pydantic import SecretStr

from activities.types import AGGREGATE, ARCHIVE, DELETE_ARCHIVE, PURGE, VERIFY
from db import maintenance
from logflume.domain import Part
from logflume.settings import Settings
from logflume_cli.services import make_workflows
from logflume_cli.worker import QUEUES, _worker
from tests.support.parts import part, replace_whole, store_parts
from tests.support.s3 import archived
from tests.support.waiting import until
from workflows.client.connection import connect_temporal, ensure_search_attributes
from workflows.client.logs import LogWorkflows
from workflows.lifecycle_types import PartsStored, workflow_id

BIN = Path(sys.executable).parent


@dataclass
class Operator:
    """Runs `temporal` and `logflume` commands; also starts a worker and stores parts."""

    settings: Settings
    pool: asyncpg.Pool
    workflows: LogWorkflows
    home: Path
    working: asyncio.Task[None] | None = None

    async def type(self, *command: str) -> str:
        """Run a command; returns its output."""
        process = await asyncio.create_subprocess_exec(
            BIN / command[0],
            *command[1:],
            env={"HOME": str(self.home)},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        output, errors = await asyncio.wait_for(process.communicate(), 60)
        assert process.returncode == 0, (command, output, errors)
        return output.decode()

    async def temporal(self, *command: str) -> Any:
        options = ("--address", self.settings.temporal.address, "--output", "json")
        printed = await self.type("temporal", *command, *options)
        return json.loads(printed) if printed.strip() else None

    def query(self, clause: str) -> str:
        """Limit a query to this test's logs: the server is shared."""
        return f"{clause} AND TaskQueue = '{self.settings.temporal.task_queue}'"

    async def listed(self, clause: str) -> set[int]:
        """The jobs whose workflows match the clause."""
        found = await self.temporal("workflow", "list", "--query", self.query(clause))
        return {int(one["execution"]["workflowId"].removeprefix("log-")) for one in found or []}

    async def until_listed(self, clause: str, *job_ids: int) -> None:
        """Wait until the query matches these jobs: Temporal's lists lag behind."""

        async def met() -> bool:
            return await self.listed(clause) == set(job_ids)

        await until(met)

    async def ask(self, job_id: int) -> dict[str, Any]:
        """The result of the query `lifecycle`."""
        options = ("--workflow-id", workflow_id(job_id), "--type", "lifecycle")
        answer = await self.temporal("workflow", "query", *options)
        [state] = answer["queryResult"]
        return state

    async def until_phase(self, job_id: int, phase: str) -> dict[str, Any]:
        states: list[dict[str, Any]] = []

        async def met() -> bool:
            states.append(await self.ask(job_id))
            return states[-1]["phase"] == phase

        await until(met)
        return states[-1]

    async def signal(self, job_id: int, *parts: Part) -> None:
        final = any(one.final for one in parts)
        batch = PartsStored(len(parts), sum(len(one.content) for one in parts), final, begun=True)
        await self.workflows.parts_stored(job_id, batch)

    async def store(self, job_id: int, *parts: Part) -> None:
        """Commit parts and signal their workflow, as a drain does."""
        await store_parts(self.pool, parts)
        await self.signal(job_id, *parts)

    async def whole_log(self, job_id: int, content: bytes) -> None:
        await self.store(job_id, *whole(job_id, content))

    async def events(self, job_id: int) -> list[dict[str, Any]]:
        """The history of a log's newest run."""
        shown = await self.temporal("workflow", "show", "--workflow-id", workflow_id(job_id))
        return shown["events"]

    async def reset(self, job_id: int, *to: str) -> None:
        options = ("--workflow-id", workflow_id(job_id), "--reason", "archive it again")
        await self.temporal("workflow", "reset", *options, *to)

    async def reset_before(
        self, job_id: int, activity: str, events: list[dict[str, Any]] | None = None
    ) -> None:
        """Reset a run (default: the newest) to before it last scheduled the activity."""
        events = events or await self.events(job_id)
        run_id = events[0]["workflowExecutionStartedEventAttributes"]["originalExecutionRunId"]
        asked = max(number(one) for one in events if activity in asks_for(one))
        to = max(
            number(one)
            for one in events
            if one["eventType"] == "EVENT_TYPE_WORKFLOW_TASK_COMPLETED" and number(one) < asked
        )
        await self.reset(job_id, "--run-id", run_id, "--event-id", str(to))

    @asynccontextmanager
    async def under_maintenance(self) -> AsyncIterator[None]:
        """Pause all reads and writes of parts."""
        async with self.pool.acquire() as connection:
            await maintenance.switch_on(connection, timedelta(minutes=1))
            yield
            await maintenance.switch_off(connection)

    async def until_trying(self, job_id: int, activity: str) -> None:
        """Wait until an activity of a log's workflow is being attempted."""

        async def met() -> bool:
            options = ("--workflow-id", workflow_id(job_id))
            pending = (await self.temporal("workflow", "describe", *options)).get(
                "pendingActivities"
            )
            return activity in {one["activityType"]["name"] for one in pending or []}

        await until(met)

    async def result(self, job_id: int) -> dict[str, Any]:
        """Wait until a log's newest run is closed."""
        done = await self.temporal("workflow", "result", "--workflow-id", workflow_id(job_id))
        assert done["status"] == "COMPLETED"
        return done["result"]

    async def is_at_its_end(self, job_id: int, content: bytes) -> bool:
        """Assert that the log is archived, verified and purged with the right content."""
        ended = await self.pool.fetchval(
            "SELECT archived_at IS NOT NULL AND archive_verified AND NOT archiving"
            " AND purged_at IS NOT NULL AND content IS NULL FROM logs WHERE job_id = $1",
            job_id,
        )
        return ended and await asyncio.to_thread(archived, self.settings, job_id) == content

    async def until_at_its_end(self, job_id: int, content: bytes) -> None:
        await until(lambda: self.is_at_its_end(job_id, content))

    async def work(self, **s3: Any) -> None:
        """Start or restart the worker with these archive settings."""
        await self.stop()
        changed = self.settings.s3.model_copy(update=s3)
        settings = self.settings.model_copy(update={"s3": changed})
        self.working = asyncio.create_task(_worker(settings, list(QUEUES)))

    async def stop(self) -> None:
        if self.working:
            self.working.cancel()
            await asyncio.wait([self.working])

    async def get_stuck(self, *job_ids: int) -> None:
        """Make logs stuck because the archive refuses them, then repair the archive."""
        await self.work(secret_key=SecretStr("not the key"))
        for job in job_ids:
            await self.whole_log(job, b"log %d" % job)
        for job in job_ids:
            assert (await self.until_phase(job, "stuck"))["last_error"].startswith("archive: ")
        await self.until_listed('LogPhase = "stuck"', *job_ids)
        await self.work()


def whole(job_id: int, content: bytes) -> list[Part]:
    return [part(job_id, 0, content), part(job_id, 1, final=True)]


def number(event: dict[str, Any]) -> int:
    return int(event["eventId"])


def asks_for(event: dict[str, Any]) -> set[str]:
    """The activity that this event schedules or, as a local activity, records."""
    scheduled = event.get("activityTaskScheduledEventAttributes", {})
    marker = event.get("markerRecordedEventAttributes", {}).get("details", {}).get("data", {})
    ran = [json.loads(b64decode(payload["data"])) for payload in marker.get("payloads", [])]
    return {scheduled.get("activityType", {}).get("name"), *(one["activity_type"] for one in ran)}


@pytest.fixture
async def operator(settings: Settings, pool: asyncpg.Pool, tmp_path) -> AsyncIterator[Operator]:
    """An operator, with a worker in this process."""
    client = await connect_temporal(settings.temporal)
    await ensure_search_attributes(client)
    operator = Operator(settings, pool, make_workflows(client, settings), tmp_path)
    await operator.work()
    yield operator
    await operator.stop()


async def test_an_operator_finds_workflows_by_phase_or_job_and_queries_them(
    operator, job_id, numbers
):
    running = next(numbers)
    await operator.whole_log(job_id, b"all of it")
    await operator.store(running, part(running, 0, b"more to come"))
    await operator.until_listed('LogPhase = "receiving"', running)
    await operator.until_listed('LogPhase = "done"', job_id)
    assert await operator.listed(f"JobId = {running}") == {running}
    state = await operator.ask(running)
    assert (state["phase"], state["parts"], state["bytes"]) == ("receiving", 1, 12)
    assert (await operator.ask(job_id))["phase"] == "done"
    assert await operator.is_at_its_end(job_id, b"all of it")


async def test_stuck_logs_resume_when_signalled_one_by_one_or_by_query(operator, job_id, numbers):
    others = [next(numbers), next(numbers)]
    await operator.get_stuck(job_id, *others)
    again = ("--name", "archive_again")
    await operator.temporal("workflow", "signal", "--workflow-id", workflow_id(job_id), *again)
    await operator.until_at_its_end(job_id, b"log %d" % job_id)
    await operator.until_listed('LogPhase = "stuck"', *others)

    query = ("--query", operator.query('LogPhase = "stuck"'), "--reason", "S3 is back", "--yes")
    await operator.temporal("workflow", "signal", *again, *query)
    for job in others:
        await operator.until_at_its_end(job, b"log %d" % job)
    await operator.until_listed('LogPhase = "stuck"')


async def test_the_sweep_finishes_logs_of_terminated_workflows(operator, job_id, numbers):
    others = [next(numbers), next(numbers)]
    await operator.get_stuck(job_id, *others)
    one = ("--workflow-id", workflow_id(job_id), "--reason", "by hand")
    await operator.temporal("workflow", "terminate", *one)
    await operator.until_listed('ExecutionStatus = "Terminated"', job_id)
    query = ("--query", operator.query('LogPhase = "stuck"'), "--reason", "by hand", "--yes")
    await operator.temporal("workflow", "terminate", *query)
    await operator.until_listed('ExecutionStatus = "Running"')

    done = await operator.temporal(
        *("workflow", "execute", "--type", "Sweep", "--workflow-id", f"sweep-of-{job_id}"),
        *("--task-queue", operator.settings.temporal.task_queue),
        *("--input", json.dumps({"after_seconds": 0, "purge_seconds": 0.5, "logs": 500})),
    )
    assert (done["result"]["found"], done["result"]["started"]) == (3, 3)
    for job in (job_id, *others):
        await operator.until_at_its_end(job, b"log %d" % job)


async def test_a_reset_stuck_log_is_archived_with_its_current_content(operator, job_id):
    """The history ends before the late parts: the workflow must query the database again."""
    await operator.get_stuck(job_id)
    await store_parts(operator.pool, [part(job_id, 2, b", and late")])  # without a signal
    await operator.reset_before(job_id, AGGREGATE)
    assert (await operator.result(job_id))["parts"] == 3
    assert await operator.is_at_its_end(job_id, b"log %d, and late" % job_id)


async def test_resets_never_change_a_finished_log(operator, job_id):
    """Its first run is reset repeatedly: the row is newer than that history."""
    parts = whole(job_id, b"all of it")
    await store_parts(operator.pool, parts)
    async with operator.under_maintenance():  # so that aggregation is not a local activity
        await operator.signal(job_id, *parts)
        await operator.until_trying(job_id, AGGREGATE)
    await operator.result(job_id)
    first = await operator.events(job_id)
    for activity in (AGGREGATE, ARCHIVE, VERIFY, PURGE):
        await operator.reset_before(job_id, activity, first)
        await operator.result(job_id)
        assert await operator.is_at_its_end(job_id, b"all of it"), activity
    for to in ("FirstWorkflowTask", "LastWorkflowTask"):
        await operator.reset(job_id, "--type", to)
        await operator.result(job_id)
        assert await operator.is_at_its_end(job_id, b"all of it"), to


async def test_a_repeated_deletion_deletes_no_valid_object(operator, job_id):
    await operator.whole_log(job_id, b"with a secret")
    await operator.result(job_id)
    await replace_whole(operator.pool, job_id, b"removed")
    async with operator.under_maintenance():
        await operator.workflows.content_replaced(job_id)
        await operator.until_trying(job_id, AGGREGATE)
    await operator.result(job_id)
    await operator.reset_before(job_id, DELETE_ARCHIVE)
    await operator.result(job_id)
    assert await operator.is_at_its_end(job_id, b"removed")


async def test_a_continued_run_can_be_reset_too(operator, job_id):
    operator.workflows = replace(
        operator.workflows, options=replace(operator.workflows.options, history_events=10)
    )
    await operator.get_stuck(job_id)
    started = (await operator.events(job_id))[0]["workflowExecutionStartedEventAttributes"]
    assert started["continuedExecutionRunId"]
    await operator.reset(job_id, "--type", "FirstWorkflowTask")
    await operator.until_phase(job_id, "stuck")
    options = ("--workflow-id", workflow_id(job_id), "--name", "archive_again")
    await operator.temporal("workflow", "signal", *options)
    await operator.until_at_its_end(job_id, b"log %d" % job_id)


async def test_downloaded_histories_are_replayed(operator, job_id, numbers, tmp_path):
    running = next(numbers)
    await operator.store(running, part(running, 0, b"more to come"))
    await operator.whole_log(job_id, b"all of it")
    await operator.result(job_id)
    await operator.reset_before(job_id, ARCHIVE)
    await operator.result(job_id)
    files = []
    for job in (job_id, running):
        files.append(tmp_path / f"{workflow_id(job)}.json")
        options = ("--workflow-id", workflow_id(job))
        files[-1].write_text(json.dumps(await operator.temporal("workflow", "show", *options)))
    report = await operator.type("logflume", "replay", *map(str, files))
    assert [line.split()[1:3] for line in report.splitlines()] == [["same,", "LogLifecycle,"]] * 2
