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
from db.parts import store_batch
from logflume.archive.store import key
from logflume.domain import Log, Part
from logflume.settings import Settings
from tests.support.parts import part, write_whole
from tests.support.s3 import s3
from workflows.lifecycle import LogLifecycle
from workflows.types import (
    ARCHIVE_AGAIN,
    CONTENT_REPLACED,
    LIFECYCLE_QUERY,
    PARTS_STORED,
    Batch,
    Lifecycle,
    LifecycleInput,
    LifecycleOptions,
    Outcome,
    workflow_id,
)

# What is told of a connection that broke: this server drops some when the machine is busy.
BROKEN = {
    RPCStatusCode.CANCELLED,
    RPCStatusCode.INTERNAL,
    RPCStatusCode.UNAVAILABLE,
    RPCStatusCode.UNKNOWN,
}
Answer = TypeVar("Answer")


async def patiently(ask: Callable[[], Awaitable[Answer]]) -> Answer:
    """Ask again where the connection broke; what was asked may have been done all the same."""
    while True:
        try:
            return await ask()
        except RPCError as error:
            if error.status not in BROKEN:
                raise
            await asyncio.sleep(0.1)


@dataclass
class Driver:
    """One log: stores parts as the drain does, tells its workflow, and looks at what came of it."""

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
        """Commit parts and signal, with the hints the drain would give."""
        async with self.pool.acquire() as connection:
            await store_batch(connection, parts)
        size = sum(len(one.content) for one in parts)
        await self.signal(PARTS_STORED, Batch(len(parts), size, final=final, begun=begun))

    async def signal(self, name: str, *arguments: Any) -> None:
        """Signal, at least once: the workflow does not mind hearing of something twice."""
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
        """Store and tell a log that is all there."""
        await self.store(
            part(self.job_id, 0, content),
            part(self.job_id, 1, final=True),
            final=True,
            begun=True,
        )

    async def replace(self, content: bytes) -> None:
        async with self.pool.acquire() as connection:
            await write_whole(connection, self.job_id, content)
        await self.signal(CONTENT_REPLACED)

    async def archive_again(self) -> None:
        await self.signal(ARCHIVE_AGAIN)

    async def result(self) -> Outcome:
        """Let time pass until the workflow is closed."""
        while (await self.describe()).status == WorkflowExecutionStatus.RUNNING:
            await patiently(lambda: self.environment.sleep(60))
        return await patiently(self.handle.result)

    async def describe(self) -> WorkflowExecutionDescription:
        return await patiently(self.handle.describe)

    async def now(self) -> datetime:
        return await patiently(self.environment.get_current_time)

    async def sleep(self, seconds: float) -> None:
        """Let so much time pass, and no more where the server had slept when it was cut off."""
        until = await self.now() + timedelta(seconds=seconds)

        async def rest() -> None:
            left = (until - await self.now()).total_seconds()
            if left > 0:
                await self.environment.sleep(left)

        await patiently(rest)

    async def look(self) -> Lifecycle:
        return await patiently(lambda: self.handle.query(LIFECYCLE_QUERY, result_type=Lifecycle))

    async def until(self, met: Callable[[Lifecycle], bool]) -> Lifecycle:
        """Look until it is so, while no time passes; this server has no event to wait for."""
        while True:
            with contextlib.suppress(RPCError):  # a busy machine answers queries late
                if met(state := await self.look()):
                    return state
            await asyncio.sleep(0.02)

    async def verified(self) -> Lifecycle:
        """Let the settle time pass and wait for what comes before the purge delay."""
        await self.sleep(self.options.settle_seconds + 1)
        return await self.until_phase("verified")

    async def until_phase(self, phase: str) -> Lifecycle:
        return await self.until(lambda state: state.phase == phase)

    async def row(self) -> Log:
        async with self.pool.acquire() as connection:
            return await reading.find(connection, self.job_id)

    def archived(self) -> bytes | None:
        """The object as any other client of the store reads it."""
        store = s3(self.settings)
        try:
            found = store.get_object(Bucket=self.settings.s3.bucket, Key=key(self.job_id))
        except store.exceptions.NoSuchKey:
            return None
        body: bytes = found["Body"].read()
        return body

    def put(self, content: bytes) -> None:
        s3(self.settings).put_object(
            Bucket=self.settings.s3.bucket, Key=key(self.job_id), Body=content
        )


OPTIONS = LifecycleOptions(
    settle_seconds=10,
    silence_seconds=3 * 3600,
    gap_seconds=30,
    purge_seconds=6 * 3600,
    archive_tries=3,
    archive_backoff_seconds=30,
)
