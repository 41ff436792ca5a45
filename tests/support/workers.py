"""Workers of lifecycles, as `logflume worker` runs them."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from temporalio.client import Client
from temporalio.worker import Worker

from activities.jitter import Jitter
from activities.logs import ArchiveActivities, DatabaseActivities
from activities.types import archive_queue
from workflows.lifecycle import LogLifecycle


@asynccontextmanager
async def lifecycle_workers(
    client: Client,
    task_queue: str,
    database: DatabaseActivities,
    archive: ArchiveActivities,
    workflow: Any = None,
    activities: Sequence[Any] = (),
) -> AsyncIterator[None]:
    """Serve both queues; `workflow` and `activities` are served beside the lifecycle."""
    async with (
        Worker(
            client,
            task_queue=task_queue,
            workflows=[LogLifecycle, *([workflow] if workflow else [])],
            activities=[database.aggregate, database.purge, *activities],
            interceptors=[Jitter()],
        ),
        Worker(
            client,
            task_queue=archive_queue(task_queue),
            activities=archive.all,
            interceptors=[Jitter()],
        ),
    ):
        yield
