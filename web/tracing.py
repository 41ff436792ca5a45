"""A span per request: in a new trace, linked to the trace of the log and to that of the caller.

Neither is its parent: a log may have many readers, and a caller's trace may not be sampled.
"""

from contextlib import suppress
from typing import Any

from litestar.types import ASGIApp, Message, Receive, Scope, Send

from logflume import contract
from logflume.errors import InvalidMessage
from logflume.observability import spans

# Too frequent to be useful: scrapes, probes, static files and the parts of runners.
EXCLUDED = ("/metrics", "/health/", "/static/", "/uptime")
PARTS = "/log-parts/"


def middleware() -> list[Any]:
    """The tracing middleware; empty without a collector."""
    return [_traced] if spans.is_on() else []


def _traced(app: ASGIApp) -> ASGIApp:
    async def traced(scope: Scope, receive: Receive, send: Send) -> None:
        route: str = scope.get("path_template", "")
        method = str(scope.get("method", ""))
        if _is_excluded(method, route):
            await app(scope, receive, send)
            return
        attributes = {"http.request.method": method, "http.route": route}
        name, links = f"{method} {route}", _links(scope)
        with spans.span(name, begins=True, links=links, attributes=attributes) as recorded:

            async def record_status(message: Message) -> None:
                if message["type"] == "http.response.start":
                    recorded["http.response.status_code"] = message["status"]
                await send(message)

            await app(scope, receive, record_status)

    return traced


def _is_excluded(method: str, route: str) -> bool:
    return route.startswith(EXCLUDED) or (route.startswith(PARTS) and method != "GET")


def _links(scope: Any) -> list[spans.SpanContext]:
    caller = spans.read_traceparent(dict(scope["headers"]).get(b"traceparent"))
    links = [caller] if caller else []
    with suppress(KeyError, InvalidMessage):  # requests without a job id
        links.append(spans.of_log(contract.parse_job_id(scope["path_params"]["job_id"])))
    return links
