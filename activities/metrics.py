"""What the worker counts, for Prometheus, beside what Temporal's library counts of activities."""

from collections.abc import Sequence

import asyncpg
from prometheus_client import Counter, Gauge, Histogram
from temporalio.client import Client

from db.connect import used_ratio
from db.logs import Verified
from db.stats import figures
from logflume.observability.metrics import Reading, Readings

STUCK = "ExecutionStatus = 'Running' AND LogPhase = 'stuck'"

AGGREGATED_LOGS = Counter(
    "logflume_worker_aggregated_logs", "Times that content was made of a log's parts."
)
CUT_LOGS = Counter(
    "logflume_worker_cut_logs", "Times that the content of a log was cut because it is too long."
)
ARCHIVE_ATTEMPTS = Counter("logflume_worker_archive_attempts", "Uploads begun to the archive.")
ARCHIVE_MISMATCHES = Counter(
    "logflume_worker_archive_mismatches",
    "Archived objects that were missing or other than what was uploaded when read back.",
)
VERIFIED_LOGS = Counter("logflume_worker_verified_logs", "Logs read back from the archive right.")
VERIFIED_BYTES = Counter("logflume_worker_verified_bytes", "Bytes of their contents.")
MISSING_PARTS = Counter(
    "logflume_worker_missing_parts", "Numbers of parts that never came, of logs that were verified."
)
FINAL_TO_VERIFIED_SECONDS = Histogram(
    "logflume_worker_final_to_verified_seconds",
    "From when the last part of a log came until it is archived and verified; a log that is "
    "archived again counts again.",
    buckets=(1, 2.5, 5, 10, 15, 20, 30, 60, 120, 300, 600, 1800, 3600, 6 * 3600),
)
PURGED_LOGS = Counter("logflume_worker_purged_logs", "Logs whose rows let go of their copy.")
SWEPT_LOGS = Counter(
    "logflume_worker_swept_logs",
    "Unfinished logs that the sweep found, by what came of them: left to a workflow that was "
    "running, started, told of its end or of replaced text, emptied or failed.",
    ["result"],
)
RESCUED_PARTS = Counter(
    "logflume_worker_rescued_parts", "Parts moved out of partitions that were to be dropped."
)
OLDEST_UNARCHIVED_SECONDS = Gauge(
    "logflume_worker_oldest_unarchived_seconds",
    "Since the job of the oldest log began that is not archived and verified; 0: all are.",
)
LOGS_STUCK = Gauge("logflume_worker_logs_stuck", "Logs whose workflow is in the phase `stuck`.")
MAINTENANCE_ON = Gauge("logflume_worker_maintenance_on", "1 while the maintenance switch is on.")
PARTITIONS_AHEAD = Gauge(
    "logflume_worker_partitions_ahead", "Partitions of parts made ahead of the present one."
)
DEFAULT_PARTITION_PARTS = Gauge(
    "logflume_worker_default_partition_parts",
    "Parts in the default partition, counted up to 10,000; not counted under maintenance.",
)
READING_FAILURES = Counter(
    "logflume_worker_reading_failures", "Times that a source of figures did not answer.", ["source"]
)
POOL_USED = Gauge(
    "logflume_worker_database_used_ratio", "Connections to Postgres in use, of those allowed."
)

for _result in ("running", "started", "told", "emptied", "failed"):
    SWEPT_LOGS.labels(_result)  # a counter that is not there yet would hide its first step


def verified(size: int, log: Verified) -> None:
    """Count a log of so many bytes that the archive was found to hold."""
    VERIFIED_LOGS.inc()
    VERIFIED_BYTES.inc(size)
    MISSING_PARTS.inc(log.missing_parts)
    if log.seconds is not None:
        FINAL_TO_VERIFIED_SECONDS.observe(log.seconds)


def readings(pool: asyncpg.Pool, client: Client) -> Readings:
    """What a worker asks Postgres and Temporal for, for everyone: all workers tell the same."""
    POOL_USED.set_function(lambda: used_ratio(pool))

    async def ask_postgres() -> Sequence[float]:
        async with pool.acquire() as connection:
            found = await figures(connection)
        return (
            found.oldest_unarchived_seconds,
            found.is_under_maintenance,
            found.partitions_ahead,
            found.default_partition_parts,
        )

    async def ask_temporal() -> Sequence[float]:
        return ((await client.count_workflows(STUCK)).count,)

    postgres = (
        OLDEST_UNARCHIVED_SECONDS,
        MAINTENANCE_ON,
        PARTITIONS_AHEAD,
        DEFAULT_PARTITION_PARTS,
    )
    return Readings(
        [
            Reading("postgres", postgres, ask_postgres),
            Reading("temporal", (LOGS_STUCK,), ask_temporal),
        ],
        READING_FAILURES,
    )
