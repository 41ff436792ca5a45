"""Who may call what: the token, signed links to one log, and the runners' own tokens."""

import hmac
import math
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from litestar.connection import ASGIConnection
from litestar.exceptions import HTTPException, PermissionDeniedException
from litestar.handlers.base import BaseRouteHandler

from logflume.errors import SettingsError
from logflume.settings.groups import WebSettings

TOKEN = "token "  # noqa: S105 - the scheme
BEARER = "bearer "
# What a signed link lets its holder do; a token made for anything else opens nothing.
LINK_SCOPE = "read"
LINK_ALGORITHM = "HS256"
PART_ALGORITHM = "RS512"
RSA_BITS = 2048
# The contract asks for the subject and the signature; times are checked where they are there.
PART_CLAIMS: Any = {"verify_aud": False, "verify_iat": False, "require": ["sub"]}

# Marks of routes: who may call them, for the guard and for the OpenAPI document.
TOKEN_ONLY: Any = {"security": [{"token": []}], "opt": {"access": "token"}}
READERS: Any = {"security": [{"token": []}, {"share": []}], "opt": {"access": "read"}}
JOB: Any = {"security": [{"token": []}, {"bearer": []}], "opt": {"access": "job"}}
OWN: Any = {"opt": {"access": "own"}}

Connection = ASGIConnection[Any, Any, Any, Any]


class Access:
    """The rules of the wire contract, as a guard of routes and as questions."""

    def __init__(self, settings: WebSettings) -> None:
        """Take over the settings.

        Raises:
            SettingsError: the key that runners' tokens are checked with is no RSA public key.
        """
        self._token = _secret(settings.auth_token)
        self._link_secret = _secret(settings.link_secret)
        self._public = settings.public_reads
        self._key = _public_key(settings.jwt_public_key)

    async def guard(self, connection: Connection, handler: BaseRouteHandler) -> None:
        """Let in who may call a route, by its mark; one without a mark needs the token.

        It awaits nothing: Litestar hands a guard that is no coroutine to a thread for each call.
        """
        job_id = str(connection.path_params.get("job_id", ""))
        match handler.opt.get("access"):
            case "read":
                # A link names a job; where the path may name a log by its own id, it opens nothing.
                by_job = {*connection.query_params.getall("by", [])} <= {"job_id"}
                if not self._may_read(connection, job_id if by_job else ""):
                    self._check_token(connection)
            case "job":
                self._check_job_token(connection, job_id)
            case "own":
                pass  # what is asked for stands in the body: the route itself looks
            case _:
                self._check_token(connection)

    def _check_job_token(self, connection: Connection, job_id: str) -> None:
        sent = connection.headers.get("authorization", "")
        if not sent.lower().startswith(BEARER):
            self._check_token(connection)
        elif not self.is_for_job(sent[len(BEARER) :], job_id):
            raise PermissionDeniedException("the token is not one for this job")

    def may_read(self, connection: Connection, job_id: str) -> bool:
        """Whether a job's log may be read; never raises."""
        return self._may_read(connection, job_id) or self._has_token(connection)

    def ends_at(self, connection: Connection) -> float:
        """When a reader's access ends, in seconds since the epoch; infinite without a link."""
        if self._public or self._has_token(connection):
            return math.inf
        link = str(connection.query_params.get("share", ""))
        return float(jwt.decode(link, options={"verify_signature": False})["exp"])

    def is_for_job(self, token: str, job_id: str) -> bool:
        """Whether a token is a runner's for this job.

        Raises:
            HTTPException: 500, there is no key to check it with.
        """
        if self._key is None:
            raise HTTPException("key is not set", status_code=500)
        try:
            jwt.decode(
                token, self._key, algorithms=[PART_ALGORITHM], subject=job_id, options=PART_CLAIMS
            )
        except jwt.InvalidTokenError:
            return False
        return True

    def _may_read(self, connection: Connection, job_id: str) -> bool:
        link = connection.query_params.get("share")
        return self._public or bool(link and self._opens(str(link), job_id))

    def _opens(self, link: str, job_id: str) -> bool:
        if not self._link_secret or not job_id:
            return False
        try:
            claims = jwt.decode(
                link,
                self._link_secret,
                algorithms=[LINK_ALGORITHM],
                subject=job_id,
                options={"require": ["sub", "exp", "scope"]},
            )
        except jwt.InvalidTokenError:
            return False
        return bool(claims["scope"] == LINK_SCOPE)

    def _check_token(self, connection: Connection) -> None:
        if not self._token:
            raise HTTPException("authentication token is not set", status_code=500)
        if not self._has_token(connection):
            raise PermissionDeniedException("the token is missing or wrong")

    def _has_token(self, connection: Connection) -> bool:
        sent = connection.headers.get("authorization", "")
        given = sent[len(TOKEN) :].encode() if sent[: len(TOKEN)].lower() == TOKEN else b""
        return bool(self._token) and hmac.compare_digest(given, self._token)


def sign_link(settings: WebSettings, job_id: int, lifetime: timedelta) -> str:
    """Make the token of a link that lets its holder read one job's log for some time.

    Raises:
        SettingsError: there is no secret to sign it with.
    """
    if settings.link_secret is None:
        raise SettingsError(
            "LOGFLUME_WEB__LINK_SECRET is not set: links cannot be signed; set it, for the web too"
        )
    claims = {"sub": str(job_id), "scope": LINK_SCOPE, "exp": datetime.now(UTC) + lifetime}
    return jwt.encode(claims, settings.link_secret.get_secret_value(), LINK_ALGORITHM)


def _secret(setting: Any) -> bytes:
    return setting.get_secret_value().encode() if setting else b""


def _public_key(pem: str | None) -> RSAPublicKey | None:
    if not pem:
        return None
    try:
        # An environment variable may hold the line breaks as two characters.
        key = load_pem_public_key(pem.replace("\\n", "\n").encode())
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, RSAPublicKey):
        raise SettingsError("LOGFLUME_WEB__JWT_PUBLIC_KEY is no RSA public key in PEM form")
    if key.key_size < RSA_BITS:
        raise SettingsError(
            f"LOGFLUME_WEB__JWT_PUBLIC_KEY has {key.key_size} bits: use one of {RSA_BITS} or more"
        )
    return key
