"""Runs the sweep and lifecycles on a real Temporal server."""

import asyncio
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import Any

import asyncpg
from pydantic import SecretStr
from temporalio.client import (
    Client,
    ScheduleActionExecutionStartWorkflow,
    ScheduleHandle,
    WorkflowExecutionStatus,
    WorkflowHandle,
)

from activities.sweep import SweepActivities
from activities.types import Timeline
from logflume.archive.store import Archive
from logflume.domain import Part, Phase
from logflume.errors import ComponentError
from logflume.settings import Settings
from tests.support.options import lifecycle_options
from tests.support.parts import part, replace_whole, store_parts
from tests.support.s3 import archived
from tests.support.waiting import until
from workflows.client.logs import LogWorkflows
from workflows.lifecycle_types import LIFECYCLE_QUERY, Lifecycle, workflow_id
from workflows.sweep import Sweep, SweepInput, SweepResult

OPTIONS = lifecycle_options(
    settle_seconds=0.1,
    idle_timeout_seconds=3600,
    gap_seconds=0.1,
    purge_seconds=0.1,
    archive_tries=1,
    archive_backoff_seconds=0.1,
)
QUIET = 0.2


@dataclass(frozen=True)
class WatchedWorkflows(LogWorkflows):
    """The real workflows, listed as they were earlier, or refusing a job."""

    seen: set[int] | None = None
    refused: set[int] = field(default_factory=set)

    async def phases(self, job_ids: Collection[int], *seconds: Any) -> dict[int, Phase]:
        phases = await super().phases(job_ids, *seconds)
        return phases if self.seen is None else dict.fromkeys(self.seen, "receiving")

    async def start(self, job_id: int, *times: Any) -> bool:
        if job_id in self.refused:
            raise ComponentError("refused")
        return await super().start(job_id, *times)


class LockedArchive(Archive):
    """The real archive, optionally with a wrong key."""

    locked: Archive | None = None

    async def upload(self, *arguments: Any, **named: Any) -> None:
        upload = self.locked.upload if self.locked else super().upload
        await upload(*arguments, **named)

    async def delete(self, job_id: int, etag: str | None = None) -> None:
        deletes = self.locked.delete if self.locked else super().delete
        await deletes(job_id, etag)


@dataclass
class Sweeper:
    """Stores parts without signals, sweeps, and checks the results."""

    client: Client
    pool: asyncpg.Pool
    settings: Settings
    workflows: LogWorkflows
    activities: SweepActivities
    archive: LockedArchive
    name: str
    sweeps: list[WorkflowHandle[Any, SweepResult]] = field(default_factory=list)
    recorded: WorkflowHandle[Any, SweepResult] | None = None
    """The sweep whose history is recorded for the replay tests."""

    async def store(self, *parts: Part) -> None:
        """Commit parts like a drain that crashes before it signals."""
        await store_parts(self.pool, parts)

    async def store_whole(self, job_id: int, content: bytes) -> None:
        await self.store(part(job_id, 0, content), part(job_id, 1, final=True))

    async def replace(self, job_id: int, content: bytes) -> None:
        """Replace content like a web process that crashes before it signals."""
        await replace_whole(self.pool, job_id, content)

    async def sweep(self, *, quiet: float = QUIET, logs: int = 500) -> SweepResult:
        """Wait for the quiet time, then run one round."""
        await asyncio.sleep(quiet if quiet == QUIET else 0)
        handle = await self.client.start_workflow(
            Sweep.run,
            SweepInput(quiet, OPTIONS.purge_seconds, logs),
            id=f"{self.name}-sweep-{len(self.sweeps)}",
            task_queue=self.settings.temporal.task_queue,
        )
        self.sweeps.append(handle)
        result = await handle.result()
        assert result.timeline.id  # the same for all of this server's tests
        return replace(result, timeline=Timeline())

    def log(self, job_id: int) -> WorkflowHandle[Any, Any]:
        return self.client.get_workflow_handle(workflow_id(job_id))

    async def until_phase(self, job_id: int, phase: str) -> Lifecycle:
        states: list[Lifecycle] = []

        async def met() -> bool:
            query = self.log(job_id).query(LIFECYCLE_QUERY, result_type=Lifecycle)
            states.append(await query)
            return states[-1].phase == phase

        await until(met)
        return states[-1]

    async def until_seen(self, *job_ids: int, runs: bool = True) -> None:
        """Wait until Temporal's lists show these workflows as running, or not."""

        async def met() -> bool:
            found = await self.workflows.phases(job_ids)
            return set(found) == (set(job_ids) if runs else set())

        await until(met)

    async def finish(self, job_id: int) -> None:
        await self.log(job_id).result()
        await self.until_seen(job_id, runs=False)

    async def events(self, job_id: int) -> int:
        return (await self.log(job_id).describe()).history_length

    def archived(self, job_id: int) -> bytes | None:
        return archived(self.settings, job_id)


def wrong_key(settings: Settings) -> Archive:
    return Archive(settings.s3.model_copy(update={"secret_key": SecretStr("not the key")}), 1)


async def last_sweep(
    client: Client, schedule: ScheduleHandle, count: int
) -> tuple[WorkflowHandle[Any, SweepResult], SweepResult]:
    """The newest of `count` runs of a schedule, and its result."""
    async with asyncio.timeout(30):
        while len(ran := (await schedule.describe()).info.recent_actions) < count:
            await asyncio.sleep(0.05)
    run = ran[-1].action
    assert isinstance(run, ScheduleActionExecutionStartWorkflow)
    handle: WorkflowHandle[Any, SweepResult] = client.get_workflow_handle(
        run.workflow_id, result_type=SweepResult
    )
    result = await handle.result()
    # The schedule skips a run until it knows that the last one has ended.
    async with asyncio.timeout(30):
        while (await schedule.describe()).info.running_actions:
            await asyncio.sleep(0.05)
    assert (await handle.describe()).status == WorkflowExecutionStatus.COMPLETED
    return handle, result
