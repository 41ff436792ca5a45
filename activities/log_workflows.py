"""What activities need of the logs' workflows; `workflows.client.logs` implements it."""

from collections.abc import Collection
from datetime import datetime
from typing import Protocol

from logflume.domain import Phase


class LifecycleView(Protocol):
    """The part of a lifecycle's state that activities read."""

    @property
    def phase(self) -> Phase:
        """The current phase."""

    @property
    def last_error(self) -> str:
        """Why the last try failed; empty if none did."""


class LogWorkflows(Protocol):
    """Signals, starts and queries workflows; raises ComponentError if Temporal does not answer."""

    async def phases(self, job_ids: Collection[int]) -> dict[int, Phase]:
        """The lasting phases of those logs that have a running workflow; some seconds old."""

    async def state(self, job_id: int) -> LifecycleView:
        """Query a log's workflow; raises ComponentError if it does not exist."""

    async def start(
        self, job_id: int, last_part_at: datetime, verified_at: datetime | None
    ) -> bool:
        """Start a workflow that aggregates at once; False if one is running."""

    async def archive_again(self, job_id: int) -> None:
        """Aggregate and archive a log again, or resume it if it is stuck."""

    async def ensure_replaced(self, job_id: int, *, running: bool) -> bool:
        """Signal replaced content again unless the running workflow is working on it."""

    async def ensure_ended(self, job_id: int) -> bool:
        """Signal the final part again if the running workflow still waits for it."""

    async def count_stuck(self) -> int:
        """Count the logs whose workflow is in phase `stuck`."""

    async def last_sweep_seconds(self) -> float:
        """The time since a sweep last completed; infinite if none has."""
