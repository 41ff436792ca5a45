"""Spans of what happens to a log; without a collector there are none, at no cost.

One trace for each log. Its id, and that of the span that all others are under, are made of the
job's id: every process finds them, and nothing carries them along. Whether a trace is kept is
decided by its id alone, so all processes agree.
"""

import hashlib
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from logflume.settings.groups import TelemetrySettings

if TYPE_CHECKING:
    from logflume.observability.otlp import Tracer

Value = str | int | float | bool
NO_ATTRIBUTES: Mapping[str, Value] = MappingProxyType({})


class SpanContext(NamedTuple):
    """A span as others refer to it; `job_id` where its trace is that of a job's log."""

    trace_id: int
    span_id: int
    job_id: int | None = None

    def inner(self, name: str) -> "SpanContext":
        """The place of a span inside, always the same for the same name."""
        return self._replace(span_id=_digest(f"{self.trace_id:032x} {name}")[1])

    def beside(self) -> "SpanContext":
        """The place of a new trace that is kept if this one is: the low half of the id decides."""
        low = self.trace_id & (1 << 64) - 1
        return SpanContext(secrets.randbits(64) << 64 | low, secrets.randbits(64))


class FinishedSpan(NamedTuple):
    """A span of what is over; `times_ns` are its begin and end, since the epoch.

    `own` is its place, else one that nobody refers to; without a `parent` it begins a trace.
    """

    name: str
    times_ns: tuple[int, int]
    parent: SpanContext | None = None
    own: SpanContext | None = None
    links: Sequence[SpanContext] = ()
    attributes: Mapping[str, Value] = NO_ATTRIBUTES
    error: str | None = None
    """The type of the error that it ended with."""


class _Process:
    tracer: "Tracer | None" = None


_process = _Process()


def _digest(name: str) -> tuple[int, int]:
    made = hashlib.sha256(b"logflume " + name.encode()).digest()
    return int.from_bytes(made[:16]), int.from_bytes(made[16:24])


def of_log(job_id: int) -> SpanContext:
    """The span of a job's whole log, which every other of its trace is under."""
    return SpanContext(*_digest(f"log {job_id}"), job_id)


def of_run(run_id: str) -> SpanContext:
    """The span of a run of a workflow that is no log's."""
    return SpanContext(*_digest(f"run {run_id}"))


@contextmanager
def exporting(settings: TelemetrySettings, process: str) -> Iterator[None]:
    """Send the spans made in the block to the collector, if there is one.

    Raises:
        SettingsError: the headers for it cannot be read.
    """
    if settings.otlp_endpoint is None:
        yield
        return
    from logflume.observability.otlp import Tracer  # noqa: PLC0415 - who has no collector does not load it

    tracer = Tracer(settings, process)
    _process.tracer = tracer
    try:
        yield
    finally:
        _process.tracer = None
        tracer.close()


def ns(time: datetime) -> int:
    """Nanoseconds since the epoch, as spans count."""
    return int(time.timestamp() * 1e9)


def is_on() -> bool:
    """Whether spans go anywhere."""
    return _process.tracer is not None


def is_kept(place: SpanContext) -> bool:
    """Whether spans of this trace go anywhere."""
    tracer = _process.tracer
    return tracer is not None and tracer.keeps(place.trace_id)


@contextmanager
def span(
    name: str,
    parent: SpanContext | None = None,
    *,
    begins: bool = False,
    links: Sequence[SpanContext] = (),
    attributes: Mapping[str, Value] = NO_ATTRIBUTES,
) -> Iterator[dict[str, Value]]:
    """Make a span of the block, which may add to its attributes.

    It is under `parent`, or else under the span that this runs in; where there is none it is made
    only if it `begins` a trace. An error that ends the block is told by its type alone: its text
    may quote anything.
    """
    told = dict(attributes)
    tracer = _process.tracer
    if tracer is None or not (parent or begins or tracer.current()):
        yield told
        return
    with tracer.span(name, parent, links, told):
        yield told


def record(made: FinishedSpan) -> None:
    """Make a span of what is over."""
    if tracer := _process.tracer:
        tracer.record(made)


def read_traceparent(header: object) -> SpanContext | None:
    """The span that a W3C `traceparent` header names, None where it makes no sense."""
    text = header.decode("latin-1") if isinstance(header, bytes) else header
    tracer = _process.tracer
    return tracer.read(text) if tracer and isinstance(text, str) else None


def add_ids(_: Any, __: str, line: Any) -> Any:
    """Give a log line the ids of the span it is written in (a processor of structlog)."""
    if (tracer := _process.tracer) and (place := tracer.current()):
        line["trace_id"] = f"{place.trace_id:032x}"
        line["span_id"] = f"{place.span_id:016x}"
    return line
