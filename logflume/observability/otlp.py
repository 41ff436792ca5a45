"""What sends spans by OTLP; a collector that is away costs spans, never time."""

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
from logflume.settings.groups import TelemetrySettings

log = structlog.get_logger()

# Spans that wait to be sent; when there are more, the oldest are dropped.
QUEUE_SPANS = 8192
# The end of a process waits for the last ones this long.
EXPORT_SECONDS = 2
WARN_SECONDS = 60.0


class Tracer:
    """Makes spans in one process and sends them from a thread of its own."""

    def __init__(self, settings: TelemetrySettings, process: str) -> None:
        # It tells of each try: what matters is said once in a while, by `_Patient`.
        logging.getLogger("opentelemetry.exporter").setLevel(logging.CRITICAL)
        exporter = OTLPSpanExporter(
            f"{str(settings.otlp_endpoint).rstrip('/')}/v1/traces",
            headers=_headers(settings),
            timeout=EXPORT_SECONDS,
        )
        about = {"service.name": f"logflume-{process}", "service.version": version("logflume")}
        self._bound = TraceIdRatioBased.get_bound_for_rate(settings.trace_ratio)
        self._ids = _Ids()
        self._provider = TracerProvider(
            # Not by the parent: the trace's id alone decides, so that all agree.
            sampler=TraceIdRatioBased(settings.trace_ratio),
            resource=Resource.create(about),
            shutdown_on_exit=False,
            id_generator=self._ids,
        )
        self._exporter = _Patient(exporter)
        self._provider.add_span_processor(BatchSpanProcessor(self._exporter, QUEUE_SPANS))
        self._tracer = self._provider.get_tracer("logflume")

    def close(self) -> None:
        """Send what waits, as far as that goes."""
        self._exporter.is_closing = True
        self._provider.shutdown()

    def keeps(self, trace_id: int) -> bool:
        """Whether this trace is one of those that are sent."""
        return trace_id & TraceIdRatioBased.TRACE_ID_LIMIT < self._bound

    @contextmanager
    def span(
        self,
        name: str,
        parent: SpanContext | None,
        links: Sequence[SpanContext],
        told: Mapping[str, Value],
    ) -> Iterator[None]:
        """See `spans.span`; the attributes `told` are read when it ends."""
        with self._tracer.start_as_current_span(
            name,
            _context(parent) if parent else None,
            attributes=_about(parent),
            links=_links(links),
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                yield
            except Exception as error:  # what is only given up is none
                span.set_status(trace.StatusCode.ERROR, type(error).__name__)
                raise
            finally:
                span.set_attributes(told)

    def record(self, made: FinishedSpan) -> None:
        """See `spans.record`."""
        began, ended = made.times_ns
        with self._ids.given(made.own):
            span = self._tracer.start_span(
                made.name,
                _context(made.parent) if made.parent else Context(),
                attributes={**_about(made.own or made.parent), **made.attributes},
                links=_links(made.links),
                start_time=began,
            )
        if made.error:
            span.set_status(trace.StatusCode.ERROR, made.error)
        span.end(ended)

    def read(self, traceparent: str) -> SpanContext | None:
        """See `spans.read_traceparent`."""
        carrier = {"traceparent": traceparent}
        return _place(TraceContextTextMapPropagator().extract(carrier, Context()))

    def current(self) -> SpanContext | None:
        """The span that this runs in."""
        return _place(None)


class _Ids(IdGenerator):
    """Random ids, but for spans that have theirs already."""

    def __init__(self) -> None:
        self._random = RandomIdGenerator()
        # Spans are made in threads, too: Temporal's library runs workflows in its own.
        self._given: ContextVar[SpanContext | None] = ContextVar("given", default=None)

    @contextmanager
    def given(self, place: SpanContext | None) -> Iterator[None]:
        """Give out these ids in the block."""
        token = self._given.set(place)
        try:
            yield
        finally:
            self._given.reset(token)

    def generate_span_id(self) -> int:
        given = self._given.get()
        return given.span_id if given else self._random.generate_span_id()

    def generate_trace_id(self) -> int:
        given = self._given.get()
        return given.trace_id if given else self._random.generate_trace_id()


class _Patient(SpanExporter):
    """Says now and then that spans are lost, not each time; at the end it tries once, not on."""

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
                log.warning("spans_lost", spans=self._lost)
                self._lost, self._warned_at = 0, time.monotonic()
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()


def _headers(settings: TelemetrySettings) -> dict[str, str]:
    if settings.otlp_headers is None:
        return {}
    pairs = [one.partition("=") for one in settings.otlp_headers.get_secret_value().split(",")]
    if not all(name.strip() and is_pair for name, is_pair, _ in pairs):
        raise SettingsError("LOGFLUME_TELEMETRY__OTLP_HEADERS: not of the form name=value,…")
    return {name.strip(): value.strip() for name, _, value in pairs}


def _span_context(place: SpanContext) -> trace.SpanContext:
    flags = trace.TraceFlags(trace.TraceFlags.SAMPLED)
    return trace.SpanContext(place.trace_id, place.span_id, is_remote=True, trace_flags=flags)


def _context(place: SpanContext) -> Context:
    return trace.set_span_in_context(trace.NonRecordingSpan(_span_context(place)), Context())


def _links(places: Sequence[SpanContext]) -> list[trace.Link]:
    return [trace.Link(_span_context(place)) for place in places]


def _place(context: Context | None) -> SpanContext | None:
    found = trace.get_current_span(context).get_span_context()
    return SpanContext(found.trace_id, found.span_id) if found.is_valid else None


def _about(place: SpanContext | None) -> dict[str, Value]:
    return {} if place is None or place.job_id is None else {"logflume.job_id": place.job_id}
