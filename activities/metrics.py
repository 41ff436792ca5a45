"""Metrics of the worker, in addition to those of Temporal's client library."""

from collections.abc import Sequence

import asyncpg
from prometheus_client import Counter, Gauge, Histogram

from activities.log_workflows import LogWorkflows
from db.connect import used_ratio
from db.logs import Verified
from db.stats import OverdueLogs, count_overdue, read_stats
from logflume.observability.metrics import Reading, Readings
from logflume.settings.stages import LifecycleSettings

AGGREGATED_LOGS = Counter(
    "logflume_worker_aggregated_logs", "Aggregations of a log's parts into its content."
)
CUT_LOGS = Counter(
    "logflume_worker_cut_logs", "Aggregations that cut a log because it exceeds the maximum size."
)
ARCHIVE_ATTEMPTS = Counter("logflume_worker_archive_attempts", "Uploads to the archive started.")
ARCHIVE_MISMATCHES = Counter(
    "logflume_worker_archive_mismatches",
    "Archived objects that were missing or differed from the upload when read back.",
)
VERIFIED_LOGS = Counter(
    "logflume_worker_verified_logs", "Logs whose archived object was verified by reading it back."
)
VERIFIED_BYTES = Counter(
    "logflume_worker_verified_bytes", "Bytes of log content verified in the archive."
)
MISSING_PARTS = Counter(
    "logflume_worker_missing_parts", "Part numbers missing from logs when they were verified."
)
INCOMPLETE_LOGS = Counter(
    "logflume_worker_incomplete_logs",
    "Logs that differed, when they were verified, from what their sender had announced.",
)
FINAL_TO_VERIFIED_SECONDS = Histogram(
    "logflume_worker_final_to_verified_seconds",
    "Seconds from the receipt of a log's last part until its archived object was verified; a log "
    "that is archived again counts again.",
    buckets=(1, 2.5, 5, 10, 15, 20, 30, 60, 120, 300, 600, 1800, 3600, 6 * 3600),
)
PURGED_LOGS = Counter("logflume_worker_purged_logs", "Logs purged from Postgres.")
SWEPT_LOGS = Counter(
    "logflume_worker_swept_logs",
    "Unfinished logs that the sweep found, by result: left to a running workflow, workflow "
    "started, signalled again, emptied (no parts) or failed.",
    ["result"],
)
TIMELINE_CHANGES = Counter(
    "logflume_worker_timeline_changes",
    "Sweeps that found another timeline of Postgres than the last one: a failover or a restore.",
)
TIMELINE_CHANGED_AT = Gauge(
    "logflume_worker_timeline_changed_timestamp_seconds",
    "When a sweep last found a change of Postgres's timeline; 0 if none did, or none ran here.",
)
RESCUED_PARTS = Counter(
    "logflume_worker_rescued_parts", "Parts moved to a newer partition before theirs was dropped."
)
OLDEST_UNARCHIVED_SECONDS = Gauge(
    "logflume_worker_oldest_unarchived_seconds",
    "Age of the oldest log not yet archived and verified; 0 if there is none.",
)
OLDEST_PENDING_DELETION_SECONDS = Gauge(
    "logflume_worker_oldest_pending_deletion_seconds",
    "Time since the oldest removal of a log's text that is not yet done in the archive; 0 if there "
    "is none.",
)
OVERDUE_LOGS = Gauge(
    "logflume_worker_overdue_logs",
    "Logs that have been due for a step (aggregating, archiving, purging) for more than 30 "
    "minutes, among the oldest 1,000 of each kind; 0 during maintenance.",
    ["phase"],
)
LAST_SWEEP_SECONDS = Gauge(
    "logflume_worker_last_sweep_seconds",
    "Time since a sweep for orphaned logs last completed; infinite if none has.",
)
SERVING = Gauge(
    "logflume_worker_serving",
    "1 if this worker serves the task queue: `lifecycle` (workflows and database activities) or "
    "`archive` (uploads and verification).",
    ["queue"],
)
LOGS_STUCK = Gauge("logflume_worker_logs_stuck", "Logs whose workflow is in phase `stuck`.")
MAINTENANCE_ON = Gauge("logflume_worker_maintenance_on", "1 while the maintenance switch is on.")
PARTITIONS_AHEAD = Gauge(
    "logflume_worker_partitions_ahead",
    "Partitions of parts created for the future; at 0, parts will go to the default partition.",
)
DEFAULT_PARTITION_PARTS = Gauge(
    "logflume_worker_default_partition_parts",
    "Parts in the default partition, counted up to 10,000; 0 during maintenance.",
)
STALE_ONLY_LOGS = Gauge(
    "logflume_worker_stale_only_logs",
    "Logs without text that got stale parts within the last hour; 0 during maintenance.",
)
READING_FAILURES = Counter(
    "logflume_worker_reading_failures",
    "Failed reads of gauge values, by source (Postgres or Temporal).",
    ["source"],
)
POOL_USED = Gauge(
    "logflume_worker_database_used_ratio",
    "Share of the connection pool to Postgres that is in use.",
)

for _result in ("running", "started", "signalled", "emptied", "failed"):
    SWEPT_LOGS.labels(_result)  # a counter that does not exist yet would hide its first increment


def verified(size: int, log: Verified) -> None:
    """Count a verified log of `size` bytes."""
    VERIFIED_LOGS.inc()
    VERIFIED_BYTES.inc(size)
    MISSING_PARTS.inc(log.missing_parts)
    INCOMPLETE_LOGS.inc(log.complete is False)
    if log.seconds is not None:
        FINAL_TO_VERIFIED_SECONDS.observe(log.seconds)


def readings(pool: asyncpg.Pool, workflows: LogWorkflows, lifecycle: LifecycleSettings) -> Readings:
    """Gauges of the whole system, read from Postgres and Temporal; the same on every worker."""
    POOL_USED.set_function(lambda: used_ratio(pool))

    async def ask_postgres() -> Sequence[float]:
        async with pool.acquire() as connection:
            found = await read_stats(connection)
            # Under maintenance an operator may hold locks on logs and parts.
            overdue = OverdueLogs(0, 0, 0)
            if not found.is_under_maintenance:
                overdue = await count_overdue(
                    connection, lifecycle.idle_timeout_seconds, lifecycle.purge_seconds
                )
        return (
            overdue.aggregating,
            overdue.archiving,
            overdue.purging,
            found.oldest_unarchived_seconds,
            found.oldest_pending_deletion_seconds,
            found.is_under_maintenance,
            found.partitions_ahead,
            found.default_partition_parts,
            found.stale_only_logs,
        )

    async def ask_temporal() -> Sequence[float]:
        return (await workflows.count_stuck(), await workflows.last_sweep_seconds())

    postgres = (
        *(OVERDUE_LOGS.labels(phase) for phase in OverdueLogs.__struct_fields__),
        OLDEST_UNARCHIVED_SECONDS,
        OLDEST_PENDING_DELETION_SECONDS,
        MAINTENANCE_ON,
        PARTITIONS_AHEAD,
        DEFAULT_PARTITION_PARTS,
        STALE_ONLY_LOGS,
    )
    return Readings(
        [
            Reading("postgres", postgres, ask_postgres),
            Reading("temporal", (LOGS_STUCK, LAST_SWEEP_SECONDS), ask_temporal),
        ],
        READING_FAILURES,
    )
