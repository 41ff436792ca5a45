"""Who may call what."""

import hmac

from litestar.connection import ASGIConnection
from litestar.exceptions import HTTPException, PermissionDeniedException
from litestar.handlers.base import BaseRouteHandler
from litestar.types import Guard

from settings import WebSettings

SCHEME = "token "


def token_guard(settings: WebSettings) -> Guard:
    """Make the guard that lets in callers who send the token, compared in constant time."""
    token = settings.auth_token.get_secret_value().encode() if settings.auth_token else b""

    def guard(connection: ASGIConnection, _: BaseRouteHandler) -> None:  # type: ignore[type-arg]
        if not token:
            raise HTTPException("authentication token is not set", status_code=500)
        sent = connection.headers.get("authorization", "")
        given = sent[len(SCHEME) :].encode() if sent[: len(SCHEME)].lower() == SCHEME else b""
        if not hmac.compare_digest(given, token):
            raise PermissionDeniedException("the token is missing or wrong")

    return guard
