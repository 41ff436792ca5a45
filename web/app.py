"""The Litestar app, put together of its routes, its dependencies and its answers to errors."""

import time
from importlib.metadata import version

import asyncpg
import structlog
from litestar import Litestar, Request, Response
from litestar.datastructures import State
from litestar.exceptions import HTTPException
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.spec import Components, SecurityScheme
from temporalio.client import Client

from archive.store import Archive
from db.connect import UNREACHABLE
from errors import ComponentError, ContentReplaced, LogflumeError, UnknownLog
from settings import Settings
from web import health, logs, pusher
from web.auth import token_guard

log = structlog.get_logger()

RETRY_SECONDS = "5"


def make_app(
    settings: Settings, pool: asyncpg.Pool, archive: Archive, temporal: Client
) -> Litestar:
    """Put the HTTP service together of what it reads from; runs inside the event loop."""
    state = State(
        {
            "settings": settings,
            "pool": pool,
            "archive": archive,
            "temporal": temporal,
            "started_at": time.monotonic(),
        }
    )
    return Litestar(
        [
            *health.ROUTES,
            logs.router(token_guard(settings.web)),
            pusher.router(token_guard(settings.web)),
        ],
        logging_config=None,  # telemetry.py speaks for all of us
        state=state,
        exception_handlers={
            HTTPException: _http_error,
            UnknownLog: _unknown,
            Exception: _unexpected,
        },
        openapi_config=OpenAPIConfig(
            title="logflume",
            version=version("logflume"),
            description="The logs of CI jobs, wherever they are in their lives.",
            components=Components(
                security_schemes={
                    "token": SecurityScheme(
                        type="apiKey",
                        name="Authorization",
                        security_scheme_in="header",
                        description="`token <AUTH_TOKEN>`",
                    )
                }
            ),
        ),
    )


def _error(text: str, status: int, headers: dict[str, str] | None = None) -> Response[object]:
    return Response({"error": text}, status_code=status, headers=headers)


def _http_error(_: Request[object, object, State], error: HTTPException) -> Response[object]:
    extra = error.extra if isinstance(error.extra, list) else []
    fields = [f"{item.get('key')}: {item.get('message')}" for item in extra]
    return _error("; ".join(fields) or error.detail, error.status_code, error.headers)


def _unknown(_: Request[object, object, State], error: UnknownLog) -> Response[object]:
    return _error(str(error), 404)


def _unexpected(request: Request[object, object, State], error: Exception) -> Response[object]:
    if isinstance(error, (*UNREACHABLE, ComponentError, ContentReplaced)):
        said = str(error) or type(error).__name__
        log.warning("request_failed", path=request.url.path, error=said)
        text = "a component is out of reach, or the log changes just now; try again"
        return _error(text, 503, {"Retry-After": RETRY_SECONDS})
    log.error("request_broke", path=request.url.path, exc_info=error)
    text = str(error) if isinstance(error, LogflumeError) else "internal error"
    return _error(text, 500)
