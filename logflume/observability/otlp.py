"""Exports spans by OTLP; an unreachable collector loses spans but never delays the process."""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.metadata import version

import structlog
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.id_generator import IdGenerator, RandomIdGenerator
from opentelemetry.sdk.trace.sampling import TraceIdRatioBased
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from logflume.errors import SettingsError
from logflume.observability.spans import FinishedSpan, SpanContext, Value
from logflume.settings.telemetry import TelemetrySettings

log = structlog.get_logger()

# Spans queued for export; the oldest are dropped beyond this.
QUEUE_SPANS = 8192
# Timeout of a request, and so of the last export when a process ends.
EXPORT_SECONDS = 2
WARN_SECONDS = 60.0


class Tracer:
    """Creates the spans of one process and exports them in a thread."""

    def __init__(self, settings: TelemetrySettings, process: str) -> None:
        # It logs every attempt; `_QuietExporter` logs lost spans at most once a minute.
        logging.getLogger("opentelemetry.exporter").setLevel(logging.CRITICAL)
        exporter = OTLPSpanExporter(
            f"{str(settings.otlp_endpoint).rstrip('/')}/v1/traces",
            headers=_headers(settings),
            timeout=EXPORT_SECONDS,
        )
        resource = {"service.name": f"logflume-{process}", "service.version": version("logflume")}
        self._bound = TraceIdRatioBased.get_bound_for_rate(settings.trace_ratio)
        self._ids = _IdGenerator()
        self._provider = TracerProvider(
            # Not parent-based: the trace id alone decides, so all processes agree.
            sampler=TraceIdRatioBased(settings.trace_ratio),
            resource=Resource.create(resource),
            shutdown_on_exit=False,
            id_generator=self._ids,
        )
        self._exporter = _QuietExporter(exporter)
        self._provider.add_span_processor(BatchSpanProcessor(self._exporter, QUEUE_SPANS))
        self._tracer = self._provider.get_tracer("logflume")

    def close(self) -> None:
        """Export the queued spans, unless the collector is unreachable."""
        self._exporter.is_closing = True
        self._provider.shutdown()

    def samples(self, trace_id: int) -> bool:
        """Whether this trace is exported."""
        return trace_id & TraceIdRatioBased.TRACE_ID_LIMIT < self._bound

    @contextmanager
    def span(
        self,
        name: str,
        parent: SpanContext | None,
        links: Sequence[SpanContext],
        attributes: Mapping[str, Value],
    ) -> Iterator[None]:
        """See `spans.span`; `attributes` are read when the span ends."""
        with self._tracer.start_as_current_span(
            name,
            _context(parent) if parent else None,
            attributes=_job_attributes(parent),
            links=_links(links),
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                yield
            except Exception as error:  # not CancelledError: a cancelled block has not failed
                span.set_status(trace.StatusCode.ERROR, type(error).__name__)
                raise
            finally:
                span.set_attributes(attributes)

    def record(self, finished: FinishedSpan) -> None:
        """See `spans.record`."""
        began, ended = finished.times_ns
        attributes = _job_attributes(finished.own or finished.parent)
        with self._ids.fixed(finished.own):
            span = self._tracer.start_span(
                finished.name,
                _context(finished.parent) if finished.parent else Context(),
                attributes={**attributes, **finished.attributes},
                links=_links(finished.links),
                start_time=began,
            )
        if finished.error:
            span.set_status(trace.StatusCode.ERROR, finished.error)
        span.end(ended)

    def read(self, traceparent: str) -> SpanContext | None:
        """See `spans.read_traceparent`."""
        carrier = {"traceparent": traceparent}
        return _span_context(TraceContextTextMapPropagator().extract(carrier, Context()))

    def current(self) -> SpanContext | None:
        """The current span."""
        return _span_context(None)


class _IdGenerator(IdGenerator):
    """Random ids, except inside `fixed`."""

    def __init__(self) -> None:
        self._random = RandomIdGenerator()
        # A context variable: Temporal's SDK runs workflows, which create spans, in threads.
        self._fixed: ContextVar[SpanContext | None] = ContextVar("fixed", default=None)

    @contextmanager
    def fixed(self, context: SpanContext | None) -> Iterator[None]:
        """Use the ids of `context` in the block."""
        token = self._fixed.set(context)
        try:
            yield
        finally:
            self._fixed.reset(token)

    def generate_span_id(self) -> int:
        fixed = self._fixed.get()
        return fixed.span_id if fixed else self._random.generate_span_id()

    def generate_trace_id(self) -> int:
        fixed = self._fixed.get()
        return fixed.trace_id if fixed else self._random.generate_trace_id()


class _QuietExporter(SpanExporter):
    """Logs lost spans at most once a minute; when closing, it does not retry a failed export."""

    def __init__(self, exporter: SpanExporter) -> None:
        self.is_closing = False
        self._exporter = exporter
        self._has_failed = False
        self._lost = 0
        self._warned_at = -WARN_SECONDS

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        if self.is_closing and self._has_failed:
            return SpanExportResult.FAILURE
        result = self._exporter.export(spans)
        self._has_failed = result is not SpanExportResult.SUCCESS
        if self._has_failed:
            self._lost += len(spans)
            if time.monotonic() - self._warned_at >= WARN_SECONDS:
                log.warning(
                    "spans_lost", spans=self._lost, next="check LOGFLUME_TELEMETRY__OTLP_ENDPOINT"
                )
                self._lost, self._warned_at = 0, time.monotonic()
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()


def _headers(settings: TelemetrySettings) -> dict[str, str]:
    if settings.otlp_headers is None:
        return {}
    pairs = [pair.partition("=") for pair in settings.otlp_headers.get_secret_value().split(",")]
    if not all(name.strip() and equals for name, equals, _ in pairs):
        raise SettingsError("LOGFLUME_TELEMETRY__OTLP_HEADERS: not of the form name=value,…")
    return {name.strip(): value.strip() for name, _, value in pairs}


def _to_otel(context: SpanContext) -> trace.SpanContext:
    flags = trace.TraceFlags(trace.TraceFlags.SAMPLED)
    return trace.SpanContext(context.trace_id, context.span_id, is_remote=True, trace_flags=flags)


def _context(parent: SpanContext) -> Context:
    return trace.set_span_in_context(trace.NonRecordingSpan(_to_otel(parent)), Context())


def _links(contexts: Sequence[SpanContext]) -> list[trace.Link]:
    return [trace.Link(_to_otel(context)) for context in contexts]


def _span_context(context: Context | None) -> SpanContext | None:
    span = trace.get_current_span(context).get_span_context()
    return SpanContext(span.trace_id, span.span_id) if span.is_valid else None


def _job_attributes(context: SpanContext | None) -> dict[str, Value]:
    return {} if context is None or context.job_id is None else {"logflume.job_id": context.job_id}
