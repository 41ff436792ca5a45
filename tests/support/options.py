"""Options of workflows as the default settings give them, with what a test changes."""

from typing import Any

from activities.types import PartitionOptions
from logflume.settings.stages import LifecycleSettings, PartitionSettings
from workflows.backfill import BackfillInput
from workflows.lifecycle_types import LifecycleOptions


def lifecycle_options(**changes: Any) -> LifecycleOptions:
    return LifecycleOptions(**LifecycleSettings().model_dump() | changes)


def partition_options(**changes: Any) -> PartitionOptions:
    return PartitionOptions(**PartitionSettings().model_dump() | changes)


def backfill_input(**changes: Any) -> BackfillInput:
    """As `logflume backfill start` does, but without waiting until logs are quiet."""
    defaults: dict[str, Any] = {
        "concurrency": 100,
        "rate": 100,
        "limit_seconds": 600,
        "quiet_seconds": 0,
        "purge_seconds": 6 * 3600,
    }
    return BackfillInput(**defaults | changes)
