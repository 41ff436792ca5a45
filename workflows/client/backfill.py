"""The backfill, from outside: starts, pauses, resumes, cancels and queries it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from temporalio.client import Client, WorkflowHandle
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from logflume.errors import ComponentError
from workflows.backfill import BACKFILL_ID, Backfill, BackfillInput, BackfillProgress
from workflows.client.connection import temporal_errors

ANSWER_SECONDS = 10.0
Handle = WorkflowHandle[Backfill, BackfillProgress]


async def start_backfill(client: Client, task_queue: str, options: BackfillInput) -> None:
    """Start a backfill.

    Raises:
        ComponentError: one is running, or Temporal is unreachable or refuses.
    """
    selection = options.kind or ", ".join(map(str, options.jobs))
    async with temporal_errors(client):
        try:
            await client.start_workflow(
                Backfill.run,
                options,
                id=BACKFILL_ID,
                task_queue=task_queue,
                static_summary=f"backfill: {selection}"[:200],
            )
        except WorkflowAlreadyStartedError as error:
            raise ComponentError(
                "a backfill is already running: wait until `logflume backfill status` says that it "
                "is done, or stop it with `logflume backfill cancel`"
            ) from error


async def backfill_status(client: Client) -> tuple[str, BackfillProgress]:
    """The status of the last backfill, such as `running` or `paused`, and its progress.

    Raises:
        ComponentError: there is none, it does not answer, or Temporal is unreachable.
    """
    async with _backfill(client) as handle:
        status = (await handle.describe()).status
        progress = await handle.query(Backfill.progress)
    name = status.name.lower() if status else "unknown"
    return "paused" if name == "running" and progress.paused else name, progress


async def pause_backfill(client: Client) -> None:
    """Start no more logs; same errors as `backfill_status`."""
    async with _backfill(client) as handle:
        await handle.signal(Backfill.pause)


async def resume_backfill(client: Client) -> None:
    """Continue after a pause; same errors as `backfill_status`."""
    async with _backfill(client) as handle:
        await handle.signal(Backfill.resume)


async def cancel_backfill(client: Client) -> None:
    """End the backfill; same errors as `backfill_status`."""
    async with _backfill(client) as handle:
        await handle.cancel()


@asynccontextmanager
async def _backfill(client: Client) -> AsyncIterator[Handle]:
    try:
        async with temporal_errors(client, ANSWER_SECONDS):
            yield client.get_workflow_handle_for(Backfill.run, BACKFILL_ID)
    except ComponentError as error:
        cause = error.__cause__
        if isinstance(cause, RPCError) and cause.status == RPCStatusCode.NOT_FOUND:
            raise ComponentError(
                "no backfill is running: start one with `logflume backfill start`"
            ) from error
        raise ComponentError(
            f"the backfill does not answer: {error}; check that a worker runs: `logflume doctor`"
        ) from error
