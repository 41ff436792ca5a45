"""All workflows, for workers and for the replay of recorded histories."""

from workflows.backfill import Backfill
from workflows.lifecycle import LogLifecycle
from workflows.partitions import PartitionMaintenance
from workflows.retention import Retention
from workflows.sweep import Sweep

WORKFLOWS = (LogLifecycle, PartitionMaintenance, Retention, Sweep, Backfill)
