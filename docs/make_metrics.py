#!/usr/bin/env python3
"""Prints docs/metrics.md, made from the code; with `--check`, tells whether that differs."""

import sys
from collections.abc import Iterator
from pathlib import Path

from prometheus_client.metrics import MetricWrapperBase

import activities.metrics
import drain.live.metrics
import drain.metrics
import web.metrics

PAGE = Path(__file__).with_name("metrics.md")
PORT = "`/metrics` on the port of `LOGFLUME_TELEMETRY__PORT`."
WORKER = f"""\
{PORT} Figures of the whole system (`oldest_unarchived`, `logs_stuck`, `maintenance_on`,
`partitions_ahead`, `default_partition`) are the same in every worker: take their maximum. With them
come those of Temporal's library, `temporal_…`: latencies and failures of tasks, of activities by
type and of requests, slots that are free, the cache of workflows."""
WEB = """\
`/metrics` beside its API. Requests are counted by route, such as `/logs/{id}`; how long a stream
was read is its duration."""
PROCESSES = {
    "drain": (PORT, (drain.metrics, drain.live.metrics)),
    "worker": (WORKER, (activities.metrics,)),
    "web": (WEB, (web.metrics,)),
}
# Litestar makes these when the first request comes.
REQUESTS = {
    "requests_total` | counter": "HTTP requests answered.",
    "requests_error_total` | counter": "Those answered by 5xx.",
    "request_duration_seconds` | histogram": "Until the last byte of the answer.",
    "requests_in_progress` | gauge": "Requests under way.",
}
REQUEST_LABELS = "`method`, `path`, `status_code`, `app_name`"
INTRODUCTION = """\
# Metrics

<!-- Made by docs/make_metrics.py from the code: change that, not this one. -->

Each process shows what it counts in Prometheus' text format, and with it the CPU seconds, memory
and open files that Python's client counts (`process_…`). `monitoring/` has a configuration that
scrapes them, alert rules and dashboards. Beside the metrics of the drain and the worker are
`/health/live` and `/health/ready`, as the web has them: 503 while a component that the process
needs is out of reach, and which.
"""


def page() -> str:
    """Write the whole page."""
    return "\n".join([INTRODUCTION, *_sections()])


def _sections() -> Iterator[str]:
    for name, (about, modules) in PROCESSES.items():
        found = (one for module in modules for one in vars(module).values())
        rows = [_row(one) for one in found if isinstance(one, MetricWrapperBase)]
        if name == "web":
            rows += [
                f"| `{web.metrics.REQUESTS.prefix}_{which} | {REQUEST_LABELS} | {meaning} |"
                for which, meaning in REQUESTS.items()
            ]
        table = ["| metric | kind | labels | meaning |", "| --- | --- | --- | --- |", *rows]
        yield "\n".join([f"## {name}", "", about, "", *table, ""])


def _row(metric: MetricWrapperBase) -> str:
    about = next(iter(metric.describe()))
    name = f"{about.name}_total" if about.type == "counter" else about.name
    # There is no public way to them.
    labels = ", ".join(f"`{label}`" for label in metric._labelnames)  # noqa: SLF001
    return f"| `{name}` | {about.type} | {labels} | {about.documentation} |"


def _main(arguments: list[str]) -> None:
    if arguments not in ([], ["--check"]):
        sys.exit("usage: docs/make_metrics.py [--check]")
    if not arguments:
        sys.stdout.write(page())
    elif not PAGE.exists() or PAGE.read_text() != page():
        sys.exit(
            "docs/metrics.md is not what the code says: "
            "run .venv/bin/python docs/make_metrics.py >docs/metrics.md"
        )


if __name__ == "__main__":
    _main(sys.argv[1:])
