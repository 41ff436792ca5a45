"""Stands in for a trace collector and for Sentry: records what processes send."""

import gzip
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


class Sent(NamedTuple):
    """One request: its path, its headers and its body, unpacked."""

    path: str
    headers: dict[str, str]
    body: bytes


class Span(NamedTuple):
    """A received span; ids in hex."""

    process: str
    trace_id: str
    span_id: str
    parent_id: str
    name: str
    start_ns: int
    end_ns: int
    error: str
    links: tuple[tuple[str, str], ...]
    attributes: dict[str, Any]


class Collector:
    """Records every POST request."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.sent: list[Sent] = []

    def spans(self) -> list[Span]:
        """All received spans in order."""
        return [
            _span(_values(service.resource)["service.name"], one)
            for sent in self.sent
            for service in ExportTraceServiceRequest.FromString(sent.body).resource_spans
            for scope in service.scope_spans
            for one in scope.spans
        ]

    def events(self) -> list[dict[str, Any]]:
        """All events in the received Sentry envelopes."""
        lines = [line for sent in self.sent for line in sent.body.splitlines()]
        return [one for line in lines if "event_id" in (one := json.loads(line)) and "level" in one]


def _values(of: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in of.attributes}


def _span(process: str, one: Any) -> Span:
    ids = (one.trace_id.hex(), one.span_id.hex(), one.parent_span_id.hex())
    links = tuple((link.trace_id.hex(), link.span_id.hex()) for link in one.links)
    times = (one.start_time_unix_nano, one.end_time_unix_nano)
    return Span(process, *ids, one.name, *times, one.status.message, links, _values(one))


@contextmanager
def collecting() -> Iterator[Collector]:
    """Listen on a free port."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers["Content-Encoding"] == "gzip":
                body = gzip.decompress(body)
            collector.sent.append(Sent(self.path, dict(self.headers), body))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Log nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        collector = Collector(server.server_port)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield collector
        finally:
            server.shutdown()
            thread.join()
