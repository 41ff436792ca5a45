"""What the drain counts, for Prometheus: for each batch, never for each part."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from prometheus_client import Counter, Gauge, Histogram

from drain.batch import Batch
from logflume.observability.metrics import Reading, Readings

SHORT = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
LONG = (0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)

PARTS = Counter("logflume_drain_parts", "Parts committed.")
PART_BYTES = Counter("logflume_drain_part_bytes", "Bytes of their contents.")
STALE_PARTS = Counter(
    "logflume_drain_stale_parts", "Parts of closed attempts: counted, and otherwise left out."
)
REJECTS = Counter(
    "logflume_drain_rejects",
    "Messages that are no part: kept in the reject queue, or not kept now and requeued.",
    ["result"],
)
FLUSH_PARTS = Histogram(
    "logflume_drain_flush_parts",
    "Parts in a batch.",
    buckets=(1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000),
)
FLUSH_SECONDS = Histogram(
    "logflume_drain_flush_seconds",
    "From when a batch goes to Postgres until its parts are committed.",
    buckets=SHORT,
)
FLUSH_FAILURES = Counter(
    "logflume_drain_flush_failures", "Tries to commit a batch that failed; each is made again."
)
FLUSHES = Gauge("logflume_drain_flushes", "Flushes in flight.")
PUBLISH_TO_COMMIT_SECONDS = Histogram(
    "logflume_drain_publish_to_commit_seconds",
    "From the earliest publish time in a batch (by the runner's clock, in whole seconds) until it "
    "is committed.",
    buckets=(0.1, 0.25, *LONG),
)
FIRST_LINE_SECONDS = Histogram(
    "logflume_drain_first_line_seconds",
    "From when a job was queued until the first part of its log is committed.",
    buckets=LONG,
)
SIGNALS = Counter("logflume_drain_signals", "Signals that Temporal took.")
SIGNAL_SECONDS = Histogram("logflume_drain_signal_seconds", "How long it took.", buckets=SHORT)
SIGNAL_FAILURES = Counter(
    "logflume_drain_signal_failures", "Signals that failed; each is sent again."
)
SIGNALS_PENDING = Gauge(
    "logflume_drain_signals_pending", "Logs whose workflows are still to be told of parts."
)
CONSUMING = Gauge("logflume_drain_consuming", "1 while it consumes the queue of parts.")
CONNECTIONS_LOST = Counter(
    "logflume_drain_amqp_connections_lost", "Connections to RabbitMQ that were lost."
)
UNACKED_MESSAGES = Gauge(
    "logflume_drain_unacked_messages", "Messages received and not acknowledged yet."
)
PREFETCH_MESSAGES = Gauge("logflume_drain_prefetch_messages", "How many of them there may be.")
HELD_BYTES = Gauge("logflume_drain_held_bytes", "Bytes of their bodies.")
GIVEN_BACK = Counter(
    "logflume_drain_given_back_messages",
    "Messages given back to RabbitMQ unread, because there was no room for them.",
)
QUEUE_MESSAGES = Gauge(
    "logflume_drain_queue_messages",
    "Messages that wait in the queues of parts that this drain consumes.",
)
QUEUE_CONSUMERS = Gauge(
    "logflume_drain_queue_consumers",
    "Consumers, of all drains, of the one of these queues that has the fewest.",
)
REJECTED_MESSAGES = Gauge(
    "logflume_drain_rejected_messages", "Messages that lie in the reject queue."
)
READING_FAILURES = Counter(
    "logflume_drain_reading_failures", "Times that a source of figures did not answer.", ["source"]
)
POOL_USED = Gauge(
    "logflume_drain_database_used_ratio", "Connections to Postgres in use, of those allowed."
)

for _result in ("kept", "requeued"):
    REJECTS.labels(_result)  # a counter that is not there yet would hide its first step


def show(live: dict[Gauge, Callable[[], float]]) -> None:
    """Have gauges ask the drain of this process when somebody looks."""
    for gauge, ask in live.items():
        gauge.set_function(ask)


def readings(queue: Callable[[], Awaitable[tuple[int, int, int]]]) -> Readings:
    """What the drain asks RabbitMQ for."""
    gauges = (QUEUE_MESSAGES, QUEUE_CONSUMERS, REJECTED_MESSAGES)
    return Readings([Reading("rabbitmq", gauges, queue)], READING_FAILURES)


def committed(batch: Batch, seconds: float) -> None:
    """Count a batch that took `seconds` to commit."""
    now = datetime.now(UTC)
    parts = size = stale = 0
    begins = []
    for group, place in batch.placed:
        if not place.is_open:
            stale += len(group.parts)
            continue
        parts += len(group.parts)
        size += group.bytes
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
