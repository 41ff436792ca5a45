"""A span for each request: a trace of its own, with links to the log's and to the caller's.

Neither is its parent: a log may have many readers, and a caller would decide what is kept.
"""

from contextlib import suppress
from typing import Any

from litestar.types import ASGIApp, Message, Receive, Scope, Send

from logflume import contract
from logflume.errors import InvalidMessage
from logflume.observability import spans

# Runners and scrapers come all the time: a span for each part, too, would be no use to anyone.
LEFT_OUT = ("/metrics", "/health/", "/static/", "/uptime")
PARTS = "/log-parts/"


def middleware() -> list[Any]:
    """What the web needs for it: nothing without a collector."""
    return [_traced] if spans.is_on() else []


def _traced(app: ASGIApp) -> ASGIApp:
    async def traced(scope: Scope, receive: Receive, send: Send) -> None:
        route: str = scope.get("path_template", "")
        method = str(scope.get("method", ""))
        if _is_left_out(method, route):
            await app(scope, receive, send)
            return
        about = {"http.request.method": method, "http.route": route}
        name, links = f"{method} {route}", _links(scope)
        with spans.span(name, begins=True, links=links, attributes=about) as told:

            async def watched(message: Message) -> None:
                if message["type"] == "http.response.start":
                    told["http.response.status_code"] = message["status"]
                await send(message)

            await app(scope, receive, watched)

    return traced


def _is_left_out(method: str, route: str) -> bool:
    return route.startswith(LEFT_OUT) or (route.startswith(PARTS) and method != "GET")


def _links(scope: Any) -> list[spans.SpanContext]:
    caller = spans.read_traceparent(dict(scope["headers"]).get(b"traceparent"))
    links = [caller] if caller else []
    with suppress(KeyError, InvalidMessage):  # not every request is about one log
        links.append(spans.of_log(contract.parse_job_id(scope["path_params"]["job_id"])))
    return links
