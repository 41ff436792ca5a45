"""Builds the inputs of workflows from the settings: the only place that does."""

from activities.types import PartitionOptions
from logflume.domain import Policy
from logflume.settings import Settings
from workflows.lifecycle_types import LifecycleOptions
from workflows.retention import RetentionInput
from workflows.sweep import SweepInput


def lifecycle_options(settings: Settings) -> LifecycleOptions:
    """Options of new logs' workflows."""
    return LifecycleOptions(**settings.lifecycle.model_dump())


def sweep_input(settings: Settings) -> SweepInput:
    """Input of each sweep."""
    sweep = settings.sweep
    return SweepInput(sweep.after_seconds, settings.lifecycle.purge_seconds, sweep.logs)


def partition_options(settings: Settings) -> PartitionOptions:
    """Options of each run of partition maintenance."""
    return PartitionOptions(**settings.partitions.model_dump())


def retention_input(settings: Settings) -> RetentionInput:
    """Input of each round of retention."""
    return RetentionInput(retention_policies(settings), settings.retention.logs)


def retention_policies(settings: Settings) -> list[Policy]:
    """The retention policies."""
    return [Policy(**policy.model_dump()) for policy in settings.retention.policies]
