"""Spans, one trace per log; without a collector they cost nothing.

The trace id and the id of a trace's root span are derived from the job id, so every process can
compute them and no message has to carry them. The trace id alone decides whether a trace is
sampled, so all processes agree.
"""

import hashlib
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from logflume.errors import SettingsError
from logflume.settings.telemetry import TelemetrySettings

if TYPE_CHECKING:
    from logflume.observability.otlp import Tracer

Value = str | int | float | bool
NO_ATTRIBUTES: Mapping[str, Value] = MappingProxyType({})


class SpanContext(NamedTuple):
    """The ids by which other spans refer to a span; `job_id` if the trace is a job's log."""

    trace_id: int
    span_id: int
    job_id: int | None = None

    def inner(self, name: str) -> "SpanContext":
        """The context of a child span, always the same for the same name."""
        return self._replace(span_id=_digest(f"{self.trace_id:032x} {name}")[1])

    def beside(self) -> "SpanContext":
        """The context of a new trace, sampled like this one: the low half of the id decides."""
        low = self.trace_id & (1 << 64) - 1
        return SpanContext(secrets.randbits(64) << 64 | low, secrets.randbits(64))


class FinishedSpan(NamedTuple):
    """A span of something that already happened.

    `times_ns` are its start and end, in nanoseconds since the epoch. `own` is its context; None: a
    random one. Without a `parent` it starts a trace.
    """

    name: str
    times_ns: tuple[int, int]
    parent: SpanContext | None = None
    own: SpanContext | None = None
    links: Sequence[SpanContext] = ()
    attributes: Mapping[str, Value] = NO_ATTRIBUTES
    error: str | None = None
    """The type of the error that ended it."""


class _Process:
    tracer: "Tracer | None" = None


_process = _Process()


def _digest(name: str) -> tuple[int, int]:
    digest = hashlib.sha256(b"logflume " + name.encode()).digest()
    return int.from_bytes(digest[:16]), int.from_bytes(digest[16:24])


def of_log(job_id: int) -> SpanContext:
    """The root span of a job's trace, which covers the whole log."""
    return SpanContext(*_digest(f"log {job_id}"), job_id)


def of_run(run_id: str) -> SpanContext:
    """The root span of a workflow run that belongs to no log."""
    return SpanContext(*_digest(f"run {run_id}"))


@contextmanager
def exporting(settings: TelemetrySettings, process: str) -> Iterator[None]:
    """Export the block's spans to the collector, if one is configured.

    Raises:
        SettingsError: OpenTelemetry is not installed, or the headers are invalid.
    """
    if settings.otlp_endpoint is None:
        yield
        return
    try:
        from logflume.observability.otlp import Tracer  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise SettingsError(
            "LOGFLUME_TELEMETRY__OTLP_ENDPOINT is set, but OpenTelemetry is not installed: "
            f"install logflume[otel], or unset it ({error})"
        ) from None

    tracer = Tracer(settings, process)
    _process.tracer = tracer
    try:
        yield
    finally:
        _process.tracer = None
        tracer.close()


def ns(time: datetime) -> int:
    """Nanoseconds since the epoch, the unit of spans."""
    return int(time.timestamp() * 1e9)


def is_on() -> bool:
    """Whether spans are exported."""
    return _process.tracer is not None


def is_sampled(context: SpanContext) -> bool:
    """Whether spans of this trace are exported."""
    tracer = _process.tracer
    return tracer is not None and tracer.samples(context.trace_id)


@contextmanager
def span(
    name: str,
    parent: SpanContext | None = None,
    *,
    begins: bool = False,
    links: Sequence[SpanContext] = (),
    attributes: Mapping[str, Value] = NO_ATTRIBUTES,
) -> Iterator[dict[str, Value]]:
    """Record a span of the block and yield its attributes, to which the block may add.

    Its parent is `parent` or else the current span; without either it is recorded only if it
    `begins` a trace. Of an error that ends the block only the type is recorded: the text may quote
    a log or a secret.
    """
    mutable = dict(attributes)
    tracer = _process.tracer
    if tracer is None or not (parent or begins or tracer.current()):
        yield mutable
        return
    with tracer.span(name, parent, links, mutable):
        yield mutable


def record(finished: FinishedSpan) -> None:
    """Record a finished span."""
    if tracer := _process.tracer:
        tracer.record(finished)


def read_traceparent(header: object) -> SpanContext | None:
    """Parse a W3C `traceparent` header; None if it is invalid."""
    text = header.decode("latin-1") if isinstance(header, bytes) else header
    tracer = _process.tracer
    return tracer.read(text) if tracer and isinstance(text, str) else None


def add_ids(_: Any, __: str, line: Any) -> Any:
    """Add the ids of the current span to a log line (a structlog processor)."""
    if (tracer := _process.tracer) and (context := tracer.current()):
        line["trace_id"] = f"{context.trace_id:032x}"
        line["span_id"] = f"{context.span_id:016x}"
    return line
