"""Structured logging of all processes."""

import logging
import sys

import structlog

from logflume.observability import sentry, spans
from logflume.settings.telemetry import TelemetrySettings


def configure_logging(settings: TelemetrySettings, process: str) -> None:
    """Log to standard error: JSON, or columns on a terminal."""
    console = settings.log_format == "console" or (
        settings.log_format == "auto" and sys.stderr.isatty()
    )
    level = getattr(logging, settings.log_level.upper())
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        spans.add_ids,
        sentry.report,
        structlog.processors.format_exc_info,
    ]
    renderer: structlog.types.Processor = (
        # Escape untrusted text such as a path: it must not move the cursor or forge a line.
        structlog.dev.ConsoleRenderer(repr_native_str=True)
        if console
        else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(process=process)
    # Libraries log through the standard library: same format, warnings and above.
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
    )
    # They log each lost connection with a traceback; it reaches our code as an error, which names
    # the component and what happens next.
    for library in ("aio_pika", "aiormq", "asyncpg.pool"):
        logging.getLogger(library).setLevel(logging.CRITICAL)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    logging.basicConfig(handlers=[handler], level=max(level, logging.WARNING), force=True)
