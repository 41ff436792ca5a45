"""Telling workflows of what came over HTTP, without letting callers wait for Temporal."""

import asyncio
from datetime import timedelta

import structlog
from temporalio.service import RPCError

from logflume.errors import ComponentError
from workflows.client.logs import LogWorkflows
from workflows.types import CONTENT_REPLACED

log = structlog.get_logger()

TELL_SECONDS = timedelta(seconds=5)
MAX_BACKOFF_SECONDS = 30.0


class Teller:
    """Signals logs' workflows; a signal that must not be lost is tried until Temporal takes it."""

    def __init__(self, workflows: LogWorkflows) -> None:
        self._workflows = workflows
        self._owed: dict[int, int] = {}  # by job: how often its content was replaced
        self._telling: set[asyncio.Task[None]] = set()

    async def archive_again(self, job_id: int) -> None:
        """Ask for a log to be archived again.

        Raises:
            ComponentError: Temporal is out of reach.
        """
        try:
            await self._workflows.archive_again(job_id, rpc_timeout=TELL_SECONDS)
        except (RPCError, RuntimeError) as error:
            raise ComponentError(f"Temporal: {error}") from error

    def content_replaced(self, job_id: int) -> None:
        """Tell that content was written whole, now or as soon as Temporal is there.

        What is owed stands in the log's row too, so that a web that dies before loses nothing.
        """
        self._owed[job_id] = self._owed.get(job_id, 0) + 1
        if self._owed[job_id] == 1:
            task = asyncio.create_task(self._tell_replaced(job_id))
            self._telling.add(task)
            task.add_done_callback(self._telling.discard)

    async def close(self) -> None:
        """Give up what Temporal did not take."""
        for task in self._telling:
            task.cancel()
        if self._owed:
            log.warning("logs_untold", count=len(self._owed))

    async def _tell_replaced(self, job_id: int) -> None:
        backoff = 0.1
        while job_id in self._owed:
            told = self._owed[job_id]
            try:
                await self._workflows.signal(job_id, CONTENT_REPLACED, rpc_timeout=TELL_SECONDS)
            except Exception as error:  # noqa: BLE001 - whatever it is, the log must be told of
                log.warning("signal_failed", job_id=job_id, error=str(error), retry_in=backoff)
                await asyncio.sleep(backoff)
                backoff = min(2 * backoff, MAX_BACKOFF_SECONDS)
                continue
            if self._owed[job_id] == told:  # not replaced again meanwhile
                del self._owed[job_id]
