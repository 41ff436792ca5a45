"""Assembles the Litestar app: routes, injected services, error responses and OpenAPI."""

import math
import re
from importlib.metadata import version

import structlog
from litestar import Litestar, MediaType, Response, Router
from litestar.config.compression import CompressionConfig
from litestar.config.cors import CORSConfig
from litestar.di import Provide
from litestar.exceptions import HTTPException
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import Components, Reference, SecurityScheme

from db.errors import is_unavailability
from logflume.errors import (
    ArchiveDiffers,
    ArchiveRefused,
    ColdStorage,
    ComponentError,
    ContentReplaced,
    LogExpired,
    LogflumeError,
    NotArchived,
    UnderHold,
    UnderMaintenance,
    UnknownLog,
)
from logflume.observability.health import describe_error
from logflume.settings.group import MIB
from logflume.settings.stages import WebSettings
from web import health, logs, metrics, pages, parts, pusher, raw, stream, timings, tracing, writes
from web.bodies import Bodies
from web.services import HttpRequest, Services

log = structlog.get_logger()

STATUSES: dict[type[LogflumeError], int] = {
    UnknownLog: 404,
    LogExpired: 410,
    NotArchived: 410,
    ColdStorage: 409,
    ArchiveDiffers: 502,
    UnderHold: 423,
}
# Log events of archived objects that cannot be read.
UNREADABLE: dict[type[LogflumeError], str] = {
    NotArchived: "archived_object_missing",
    ColdStorage: "archived_object_cold",
    ArchiveDiffers: "archived_object_differs",
}
RETRY_SECONDS = "5"
# Less than the largest message of RabbitMQ 4 (16 MiB), and more than Pusher sends.
PARTS_BYTES = 12 * MIB
PUSHER_BYTES = 256 * 1024
_BODY_FIELD = re.compile(r"`\$\.data\.?(.+)`$")


def _in_header(description: str) -> SecurityScheme:
    return SecurityScheme(
        type="apiKey", name="Authorization", security_scheme_in="header", description=description
    )


SECURITY: dict[str, SecurityScheme | Reference] = {
    "token": _in_header("`token <AUTH_TOKEN>`"),
    "signature": _in_header("`token sig:<hex SHA-1 of the concatenated tokens of all parts>`"),
    "bearer": SecurityScheme(
        type="http", scheme="bearer", bearer_format="JWT", description="RS512; `sub` is the job id"
    ),
    "share": SecurityScheme(
        type="apiKey",
        name="share",
        security_scheme_in="query",
        description="signature of a link made by `logflume share`; gives read access to one log",
    ),
}


def make_app(services: Services) -> Litestar:
    """Assemble the HTTP service from its routes; runs inside the event loop."""
    access, settings = services.access, services.settings.web
    metrics.observe_pool(services.pool)
    max_bytes = settings.max_body_bytes

    def guarded(routes: list[HTTPRouteHandler], limit: int) -> Router:
        size = min(limit, max_bytes)
        return Router(
            "/",
            route_handlers=routes,
            guards=[access.guard],
            before_request=_check_encoding,
            request_max_body_size=size,
        )

    return Litestar(
        [
            *health.ROUTES,
            # With a port of their own, metrics are not on the public one.
            *([] if services.settings.telemetry.port else metrics.ROUTES),
            guarded(
                [*logs.ROUTES, *raw.ROUTES, *stream.ROUTES, *timings.ROUTES, *writes.ROUTES],
                max_bytes,
            ),
            guarded(parts.ROUTES, PARTS_BYTES),
            guarded(pusher.ROUTES, PUSHER_BYTES),
            pages.router(access.may_read),
        ],
        middleware=[
            metrics.REQUESTS.middleware,
            *tracing.middleware(),
            Bodies(max_bytes).middleware,
        ],
        logging_config=None,  # structlog is configured by the process
        dependencies={"services": Provide(lambda: services, sync_to_thread=False)},
        request_max_body_size=max_bytes,
        response_headers={"X-Content-Type-Options": "nosniff"},
        cors_config=_cors(settings),
        # Not streams, which it would delay, nor the bytes of logs, whose ranges must be exact, nor
        # their text as JSON: compressing it would cost several times as much as reading it.
        compression_config=CompressionConfig(
            backend="gzip",
            gzip_compress_level=6,
            exclude=[
                *("/stream$", "/raw$", "^/static/", "^/jobs/", "^/$", "^/schema/?$", "^/metrics$"),
                *("^/logs/[^/]+$", "^/log-parts/"),
            ],
        ),
        exception_handlers={
            HTTPException: _http_error,
            **dict.fromkeys(STATUSES, _refusal),
            Exception: _unexpected,
        },
        openapi_config=OpenAPIConfig(
            title="logflume",
            version=version("logflume"),
            description="Read, write, follow and archive the logs of CI jobs.",
            use_handler_docstrings=True,
            components=Components(security_schemes=SECURITY),
            # Litestar's pages load scripts from other hosts; browsers get ours.
            render_plugins=[JsonRenderPlugin(path=["/", "/openapi.json"])],
            openapi_router=Router(
                "/schema",
                route_handlers=[],
                include_in_schema=False,
                before_request=pages.schema_page,
                after_request=_not_found_as_json,
            ),
        ),
    )


async def _check_encoding(request: HttpRequest) -> None:
    """Refuse an encoded body, which would be stored as text."""
    if request.headers.get("Content-Encoding", "identity").strip().lower() not in {"", "identity"}:
        raise HTTPException("send the body without Content-Encoding", status_code=415)


def _cors(settings: WebSettings) -> CORSConfig | None:
    if not settings.cors_origins:
        return None
    return CORSConfig(
        allow_origins=[*settings.cors_origins],
        allow_headers=["authorization", "content-type", "last-event-id", "range"],
        expose_headers=["content-range", "etag", "retry-after"],
    )


def _error(text: str, status: int, headers: dict[str, str] | None = None) -> Response[object]:
    body = {"error": text}
    return Response(body, status_code=status, headers=headers, media_type=MediaType.JSON)


def _not_found_as_json(response: Response[object]) -> Response[object]:
    return _error("Not Found", 404) if response.status_code == 404 else response


def _http_error(_: HttpRequest, error: HTTPException) -> Response[object]:
    extra = error.extra if isinstance(error.extra, list) else []
    fields = [_field_error(error, item.get("key"), item.get("message")) for item in extra]
    return _error("; ".join(fields) or error.detail, error.status_code, error.headers)


def _field_error(error: HTTPException, key: object, message: object) -> str:
    """Describe a field's error; inside an array only the cause names the field."""
    if (key, message) == ("data", "'data'"):
        return "the body is missing"
    field = _BODY_FIELD.search(str(error.__cause__)) if key == "data" else None
    return f"{field[1] if field else key}: {message}"


def _refusal(request: HttpRequest, error: LogflumeError) -> Response[object]:
    if event := UNREADABLE.get(type(error)):
        log.error(event, path=request.url.path, error=str(error))
    return _error(str(error), STATUSES[type(error)])


def _unexpected(request: HttpRequest, error: Exception) -> Response[object]:
    if isinstance(error, UnderMaintenance):
        return _error(str(error), 503, {"Retry-After": str(math.ceil(error.seconds))})
    if is_unavailability(error) or isinstance(error, (ComponentError, ContentReplaced)):
        log.warning("request_failed", path=request.url.path, error=describe_error(error))
        text = "temporarily unavailable: a dependency is down or the log is being rewritten; retry"
        return _error(text, 503, {"Retry-After": RETRY_SECONDS})
    if isinstance(error, ArchiveRefused):
        log.error("archive_refused", path=request.url.path, error=str(error))
        text = "the archive refuses to return the log; the reason is in the server log"
        return _error(text, 502)
    if isinstance(error, RecursionError):
        return _error("the body is nested too deeply", 400)
    if isinstance(error, UnicodeDecodeError):  # our own code decodes with replacement
        return _error("the body is not UTF-8", 400)
    log.error("request_crashed", path=request.url.path, exc_info=error)
    # The error may name what only operators may know.
    return _error("internal error; details are in the server log", 500)
