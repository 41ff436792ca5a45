"""The drain's metrics; updated for each batch, never for each part."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from prometheus_client import Counter, Gauge, Histogram

from drain.batch import Batch
from logflume.observability.metrics import Reading, Readings

SHORT = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
LONG = (0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)

PARTS = Counter("logflume_drain_parts", "Parts committed to Postgres.")
PART_BYTES = Counter("logflume_drain_part_bytes", "Bytes of content committed to Postgres.")
STALE_PARTS = Counter(
    "logflume_drain_stale_parts", "Parts of closed attempts, which are counted and not stored."
)
SUPERSEDED_ATTEMPTS = Counter(
    "logflume_drain_superseded_attempts",
    "Attempts that began, by their runner's clock, before the one that was the log when their "
    "first parts arrived: delivered late, or the clock is behind.",
)
INVALID_MESSAGES = Counter(
    "logflume_drain_invalid_messages",
    "Messages that cannot become a part: dead-lettered, or held because the dead-letter queue "
    "did not accept them.",
    ["result"],
)
FLUSH_PARTS = Histogram(
    "logflume_drain_flush_parts",
    "Parts in a batch.",
    buckets=(1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000),
)
FLUSH_SECONDS = Histogram(
    "logflume_drain_flush_seconds",
    "Seconds from the start of a flush until its parts are committed.",
    buckets=SHORT,
)
FLUSH_FAILURES = Counter(
    "logflume_drain_flush_failures", "Failed attempts to commit a batch; each is retried."
)
FLUSHES = Gauge("logflume_drain_flushes", "Flushes in flight.")
PUBLISH_TO_COMMIT_SECONDS = Histogram(
    "logflume_drain_publish_to_commit_seconds",
    "Seconds from the earliest publish time in a batch (by the runner's clock, in whole seconds) "
    "until its commit.",
    buckets=(0.1, 0.25, *LONG),
)
FIRST_LINE_SECONDS = Histogram(
    "logflume_drain_first_line_seconds",
    "Seconds from queueing a job until the commit of the first part of its log.",
    buckets=LONG,
)
SIGNALS = Counter("logflume_drain_signals", "Signals that Temporal accepted.")
SIGNAL_SECONDS = Histogram(
    "logflume_drain_signal_seconds", "Seconds to signal a workflow.", buckets=SHORT
)
SIGNAL_FAILURES = Counter("logflume_drain_signal_failures", "Failed signals; each is retried.")
SIGNALS_PENDING = Gauge(
    "logflume_drain_signals_pending", "Logs whose workflows have not been signalled yet."
)
CONSUMING = Gauge("logflume_drain_consuming", "1 while the drain consumes the queue of parts.")
SUSPENDED = Gauge(
    "logflume_drain_suspended",
    "1 while the drain does not consume because too many messages were invalid.",
)
CONNECTIONS_LOST = Counter(
    "logflume_drain_amqp_connections_lost", "Connections to RabbitMQ that were lost."
)
UNACKED_MESSAGES = Gauge(
    "logflume_drain_unacked_messages", "Messages received and not acknowledged yet."
)
PREFETCH_MESSAGES = Gauge(
    "logflume_drain_prefetch_messages",
    "Current prefetch: how many messages may be unacknowledged.",
)
HELD_BYTES = Gauge("logflume_drain_held_bytes", "Bytes of message bodies held unacknowledged.")
REQUEUED = Counter(
    "logflume_drain_requeued_messages",
    "Messages requeued unread, because they did not fit the in-flight window.",
)
QUEUE_MESSAGES = Gauge(
    "logflume_drain_queue_messages", "Messages ready in the queues that this drain consumes."
)
QUEUE_CONSUMERS = Gauge(
    "logflume_drain_queue_consumers",
    "Lowest consumer count among the queues this drain consumes.",
)
DEAD_LETTERS = Gauge("logflume_drain_dead_letters", "Messages in the dead-letter queue.")
READING_FAILURES = Counter(
    "logflume_drain_reading_failures",
    "Failed requests to a server for the values of gauges.",
    ["source"],
)
POOL_USED = Gauge(
    "logflume_drain_database_used_ratio", "Share of the allowed Postgres connections in use."
)

for _result in ("dead_lettered", "held"):
    INVALID_MESSAGES.labels(_result)  # a counter that does not exist yet would hide its first step


def observe(gauges: dict[Gauge, Callable[[], float]]) -> None:
    """Read gauges from the drain of this process whenever metrics are collected."""
    for gauge, read in gauges.items():
        gauge.set_function(read)


def readings(queue: Callable[[], Awaitable[tuple[int, int, int]]]) -> Readings:
    """The gauges that are read from RabbitMQ."""
    gauges = (QUEUE_MESSAGES, QUEUE_CONSUMERS, DEAD_LETTERS)
    return Readings([Reading("rabbitmq", gauges, queue)], READING_FAILURES)


def committed(batch: Batch, seconds: float) -> None:
    """Count a batch that took `seconds` to commit."""
    now = datetime.now(UTC)
    parts = size = stale = 0
    begins = []
    for group, attempt in batch.placed:
        if not attempt.is_open:
            stale += len(group.parts)
            continue
        parts += len(group.parts)
        size += group.bytes
        SUPERSEDED_ATTEMPTS.inc(attempt.begun and not attempt.is_log)
        if group.begins_at:
            begins.append(group.begins_at)
    PARTS.inc(parts)
    PART_BYTES.inc(size)
    STALE_PARTS.inc(stale)
    FLUSH_PARTS.observe(parts + stale)
    FLUSH_SECONDS.observe(seconds)
    if begins:
        PUBLISH_TO_COMMIT_SECONDS.observe(max(0.0, (now - min(begins)).total_seconds()))
    for queued_at in batch.queued_at:
        FIRST_LINE_SECONDS.observe(max(0.0, (now - queued_at).total_seconds()))


def signal_sent(seconds: float) -> None:
    """Count a signal that Temporal accepted."""
    SIGNALS.inc()
    SIGNAL_SECONDS.observe(seconds)
