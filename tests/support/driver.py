"""Drives the workflow of one log on a time-skipping Temporal server."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar

import asyncpg
from temporalio.client import (
    Client,
    WorkflowExecutionDescription,
    WorkflowExecutionStatus,
    WorkflowHandle,
)
from temporalio.service import RPCError, RPCStatusCode
from temporalio.testing import WorkflowEnvironment

from db import reading
from logflume.archive.store import key
from logflume.domain import Log, Part
from logflume.settings import Settings
from tests.support.options import lifecycle_options
from tests.support.parts import part, replace_whole, store_parts
from tests.support.s3 import archived, s3
from workflows.lifecycle import LogLifecycle
from workflows.lifecycle_types import (
    ARCHIVE_AGAIN,
    CONTENT_REPLACED,
    LIFECYCLE_QUERY,
    PARTS_STORED,
    Lifecycle,
    LifecycleInput,
    LifecycleOptions,
    Outcome,
    PartsStored,
    workflow_id,
)

# Errors of a broken connection: this server drops some when the machine is busy.
BROKEN = {
    RPCStatusCode.CANCELLED,
    RPCStatusCode.INTERNAL,
    RPCStatusCode.UNAVAILABLE,
    RPCStatusCode.UNKNOWN,
}
Answer = TypeVar("Answer")


async def patiently(ask: Callable[[], Awaitable[Answer]]) -> Answer:
    """Retry if the connection broke; the call may have been executed all the same."""
    while True:
        try:
            return await ask()
        except RPCError as error:
            if error.status not in BROKEN:
                raise
            await asyncio.sleep(0.1)


@dataclass
class Driver:
    """One log: stores parts as the drain does, signals its workflow and checks the results."""

    job_id: int
    options: LifecycleOptions
    environment: WorkflowEnvironment
    pool: asyncpg.Pool
    settings: Settings
    task_queue: str

    @property
    def client(self) -> Client:
        return self.environment.client

    @property
    def handle(self) -> WorkflowHandle[Any, Outcome]:
        return self.client.get_workflow_handle(workflow_id(self.job_id), result_type=Outcome)

    async def store(self, *parts: Part, final: bool = False, begun: bool = False) -> None:
        """Commit parts and signal them as the drain does."""
        await store_parts(self.pool, parts)
        size = sum(len(one.content) for one in parts)
        await self.signal(PARTS_STORED, PartsStored(len(parts), size, final=final, begun=begun))

    async def signal(self, name: str, *arguments: Any) -> None:
        """Signal at least once: duplicated signals are harmless."""
        await patiently(
            lambda: self.client.start_workflow(
                LogLifecycle.run,
                LifecycleInput(self.job_id, self.options),
                id=workflow_id(self.job_id),
                task_queue=self.task_queue,
                start_signal=name,
                start_signal_args=arguments,
            )
        )

    async def whole_log(self, content: bytes = b"one log") -> None:
        """Store and signal a complete log."""
        await self.store(
            part(self.job_id, 0, content),
            part(self.job_id, 1, final=True),
            final=True,
            begun=True,
        )

    async def replace(self, content: bytes) -> None:
        await replace_whole(self.pool, self.job_id, content)
        await self.signal(CONTENT_REPLACED)

    async def archive_again(self) -> None:
        await self.signal(ARCHIVE_AGAIN)

    async def result(self) -> Outcome:
        """Skip time until the workflow is closed."""
        while (await self.describe()).status == WorkflowExecutionStatus.RUNNING:
            await patiently(lambda: self.environment.sleep(600))
        return await patiently(self.handle.result)

    async def describe(self) -> WorkflowExecutionDescription:
        return await patiently(self.handle.describe)

    async def now(self) -> datetime:
        return await patiently(self.environment.get_current_time)

    async def sleep(self, seconds: float) -> None:
        """Skip this time, and no more if the connection broke after the server had skipped it."""
        until = await self.now() + timedelta(seconds=seconds)

        async def rest() -> None:
            left = (until - await self.now()).total_seconds()
            if left > 0:
                await self.environment.sleep(left)

        await patiently(rest)

    async def state(self) -> Lifecycle:
        return await patiently(lambda: self.handle.query(LIFECYCLE_QUERY, result_type=Lifecycle))

    async def until(self, met: Callable[[Lifecycle], bool]) -> Lifecycle:
        """Poll the state until it is `met`, without skipping time."""
        while True:
            with contextlib.suppress(RPCError):  # a busy machine answers queries late
                if met(state := await self.state()):
                    return state
            await asyncio.sleep(0.02)

    async def verified(self) -> Lifecycle:
        """Skip the settle time and wait for the phase `verified`."""
        await self.sleep(self.options.settle_seconds + 1)
        return await self.until_phase("verified")

    async def until_phase(self, phase: str) -> Lifecycle:
        return await self.until(lambda state: state.phase == phase)

    async def row(self) -> Log:
        async with self.pool.acquire() as connection:
            return await reading.find(connection, self.job_id)

    def archived(self) -> bytes | None:
        """The archived object, read with a plain S3 client."""
        return archived(self.settings, self.job_id)

    def put(self, content: bytes) -> None:
        s3(self.settings).put_object(
            Bucket=self.settings.s3.bucket, Key=key(self.job_id), Body=content
        )


OPTIONS = lifecycle_options(archive_tries=3)
