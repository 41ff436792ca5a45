"""Runs the sweep and the workflows of logs on a real Temporal server."""

import asyncio
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import asyncpg
from pydantic import SecretStr
from temporalio.client import Client, WorkflowHandle
from temporalio.service import RPCError, RPCStatusCode

from activities.sweep import SweepActivities
from db.parts import store_batch
from logflume.archive.store import Archive, key
from logflume.domain import Part
from logflume.settings import Settings
from tests.support.parts import part, write_whole
from tests.support.s3 import s3
from tests.support.waiting import until
from workflows.client.logs import LogWorkflows
from workflows.sweep import Sweep
from workflows.types import (
    LIFECYCLE_QUERY,
    Lifecycle,
    LifecycleOptions,
    SweepInput,
    Swept,
    workflow_id,
)

OPTIONS = LifecycleOptions(
    settle_seconds=0.1,
    silence_seconds=3600,
    gap_seconds=0.1,
    purge_seconds=0.1,
    archive_tries=1,
    archive_backoff_seconds=0.1,
)
QUIET = 0.2


@dataclass(frozen=True)
class WatchedWorkflows(LogWorkflows):
    """The real ones, seen as they were some time ago, or refusing a job."""

    seen: set[int] | None = None
    refused: set[int] = field(default_factory=set)

    async def running(self, job_ids: Collection[int]) -> set[int]:
        found = await super().running(job_ids)
        return found if self.seen is None else self.seen

    async def take_up(self, job_id: int, *times: Any) -> bool:
        if job_id in self.refused:
            raise RPCError("refused", RPCStatusCode.INTERNAL, b"")
        return await super().take_up(job_id, *times)


class LockedArchive(Archive):
    """The real archive, which may be asked with the wrong key."""

    locked: Archive | None = None

    async def upload(self, *arguments: Any, **named: Any) -> None:
        upload = self.locked.upload if self.locked else super().upload
        await upload(*arguments, **named)

    async def delete(self, job_id: int) -> None:
        await (self.locked.delete(job_id) if self.locked else super().delete(job_id))


@dataclass
class Sweeper:
    """A worker's client: stores what nobody tells, sweeps, and looks at what came of it."""

    client: Client
    pool: asyncpg.Pool
    settings: Settings
    workflows: LogWorkflows
    activities: SweepActivities
    archive: LockedArchive
    name: str
    sweeps: list[WorkflowHandle[Any, Swept]] = field(default_factory=list)
    kept: WorkflowHandle[Any, Swept] | None = None
    """The sweep whose history is recorded for the replay tests."""

    async def store(self, *parts: Part) -> None:
        """Commit parts as a drain does that dies before it tells anybody."""
        async with self.pool.acquire() as connection:
            await store_batch(connection, parts)

    async def store_whole(self, job_id: int, content: bytes) -> None:
        await self.store(part(job_id, 0, content), part(job_id, 1, final=True))

    async def replace(self, job_id: int, content: bytes) -> None:
        """Write content whole as a web does that dies before it tells anybody."""
        async with self.pool.acquire() as connection:
            await write_whole(connection, job_id, content)

    async def sweep(self, *, quiet: float = QUIET, **options: Any) -> Swept:
        """Let the set time pass, then run one round."""
        await asyncio.sleep(quiet if quiet == QUIET else 0)
        handle = await self.client.start_workflow(
            Sweep.run,
            SweepInput(quiet, OPTIONS.purge_seconds, **options),
            id=f"{self.name}-sweep-{len(self.sweeps)}",
            task_queue=self.settings.temporal.task_queue,
        )
        self.sweeps.append(handle)
        return await handle.result()

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
        """Wait until Temporal's lists know that these jobs' workflows run, or do no longer."""

        async def met() -> bool:
            found = await self.workflows.running(job_ids)
            return found == (set(job_ids) if runs else set())

        await until(met)

    async def finish(self, job_id: int) -> None:
        await self.log(job_id).result()
        await self.until_seen(job_id, runs=False)

    async def events(self, job_id: int) -> int:
        return (await self.log(job_id).describe()).history_length

    def archived(self, job_id: int) -> bytes | None:
        store, bucket = s3(self.settings), self.settings.s3.bucket
        try:
            found = store.get_object(Bucket=bucket, Key=key(job_id))
        except store.exceptions.NoSuchKey:
            return None
        body: bytes = found["Body"].read()
        return body


def wrong_key(settings: Settings) -> Archive:
    return Archive(settings.s3.model_copy(update={"secret_key": SecretStr("not the key")}), 1)
