"""Access control: the token, signed links to one log, and the tokens of runners."""

import hmac
import math
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from litestar.connection import ASGIConnection
from litestar.exceptions import HTTPException, PermissionDeniedException
from litestar.handlers.base import BaseRouteHandler
from pydantic import SecretStr

from logflume.errors import SettingsError
from logflume.settings.stages import WebSettings

TOKEN = "token "  # noqa: S105 - the name of the scheme
BEARER = "bearer "
# What a signed link grants; a token with another scope is rejected.
LINK_SCOPE = "read"
LINK_ALGORITHM = "HS256"
PART_ALGORITHM = "RS512"
RSA_BITS = 2048
# The signature only joins the tokens of many parts; each part is protected by its own token.
SIGNATURE = "token sig:"
# The contract requires subject and signature; `exp` and `nbf` are checked if present. The subject
# is compared here: PyJWT rejects integers.
PART_CLAIMS: Any = {
    "verify_aud": False,
    "verify_iat": False,
    "verify_sub": False,
    "require": ["sub"],
}

# Access of a route, for the guard and for the OpenAPI document.
TOKEN_ONLY: Any = {"security": [{"token": []}], "opt": {"access": "token"}}
READERS: Any = {"security": [{"token": []}, {"share": []}], "opt": {"access": "read"}}
JOB: Any = {"security": [{"token": []}, {"bearer": []}], "opt": {"access": "job"}}
SIGNED: Any = {"security": [{"signature": []}], "opt": {"access": "signature"}}
BY_HANDLER: Any = {"opt": {"access": "handler"}}

Connection = ASGIConnection[Any, Any, Any, Any]


class Access:
    """Decides who may call what, by the rules of the wire contract."""

    def __init__(self, settings: WebSettings) -> None:
        """Read the secrets and the key.

        Raises:
            SettingsError: `jwt_public_key` is not an RSA public key, or too short.
        """
        self._token = _secret(settings.auth_token)
        self._link_secret = _secret(settings.link_secret)
        self._public = settings.public_reads
        self._key = _public_key(settings.jwt_public_key)

    async def guard(self, connection: Connection, handler: BaseRouteHandler) -> None:
        """Reject callers without the access that a route requires; the default is the token.

        It awaits nothing, but Litestar runs guards that are not coroutines in a thread per call.
        """
        job_id = str(connection.path_params.get("job_id", ""))
        match handler.opt.get("access"):
            case "read":
                # A link is for a job id; it must not open a log by log id.
                by_job = {*connection.query_params.getall("by", [])} <= {"job_id"}
                if not self._may_read(connection, job_id if by_job else ""):
                    self._check_not_expired(connection, job_id)
                    self._check_token(connection)
            case "job":
                self._check_job_token(connection, job_id)
            case "signature":  # the rest depends on the body
                if not connection.headers.get("authorization", "").startswith(SIGNATURE):
                    raise PermissionDeniedException("the signature of the tokens is missing")
            case "handler":
                pass  # access depends on the body
            case _:
                self._check_token(connection)

    def _check_job_token(self, connection: Connection, job_id: str) -> None:
        token = self.runner_token(connection)
        if not token:
            self._check_token(connection)
        elif not self.is_for_job(token, job_id):
            raise PermissionDeniedException("the token is not valid for this job")

    @staticmethod
    def runner_token(connection: Connection) -> str:
        """The runner's own token (JWT) that a request carries; empty if it carries another one."""
        sent = connection.headers.get("authorization", "")
        return sent[len(BEARER) :] if sent.lower().startswith(BEARER) else ""

    def may_read(self, connection: Connection, job_id: str) -> bool:
        """Whether the caller may read the log of a job; never raises."""
        return self._may_read(connection, job_id) or self.has_token(connection)

    def ends_at(self, connection: Connection) -> float:
        """When read access ends, in seconds since the epoch; infinite without a link."""
        if self._public or self.has_token(connection):
            return math.inf
        link = str(connection.query_params.get("share", ""))
        return float(jwt.decode(link, options={"verify_signature": False})["exp"])

    def is_for_job(self, token: str, job_id: str) -> bool:
        """Whether a runner's token is valid for this job.

        Raises:
            HTTPException: 500, no public key is configured.
        """
        if self._key is None:
            raise HTTPException("key is not set", status_code=500)
        try:
            claims = jwt.decode(token, self._key, algorithms=[PART_ALGORITHM], options=PART_CLAIMS)
        except jwt.InvalidTokenError:
            return False
        sub = claims["sub"]
        return isinstance(sub, str | int) and not isinstance(sub, bool) and str(sub) == job_id

    def _may_read(self, connection: Connection, job_id: str) -> bool:
        link = connection.query_params.get("share")
        return self._public or bool(link and self._opens(str(link), job_id))

    def _opens(self, link: str, job_id: str) -> bool:
        return self._link_claims(link, job_id) is not None

    def _link_claims(
        self, link: str, job_id: str, *, verify_exp: bool = True
    ) -> dict[str, Any] | None:
        """The claims of a link to the log of a job; None if it is not valid."""
        if not self._link_secret or not job_id:
            return None
        try:
            claims: dict[str, Any] = jwt.decode(
                link,
                self._link_secret,
                algorithms=[LINK_ALGORITHM],
                subject=job_id,
                options={"require": ["sub", "exp", "scope"], "verify_exp": verify_exp},
            )
        except jwt.InvalidTokenError:
            return None
        return claims if claims["scope"] == LINK_SCOPE else None

    def _check_not_expired(self, connection: Connection, job_id: str) -> None:
        """Reject a link that was valid until it expired, unless the token is sent too."""
        link = str(connection.query_params.get("share") or "")
        claims = self._link_claims(link, job_id, verify_exp=False) if link else None
        now = datetime.now(UTC)
        if claims and claims["exp"] <= now.timestamp() and not self.has_token(connection):
            when = datetime.fromtimestamp(claims["exp"], UTC)
            raise PermissionDeniedException(
                f"the link expired on {when:%Y-%m-%d at %H:%M} UTC; ask for a new one"
            )

    def _check_token(self, connection: Connection) -> None:
        if not self._token:
            raise HTTPException("authentication token is not set", status_code=500)
        if not self.has_token(connection):
            raise PermissionDeniedException("the token is missing or wrong")

    def has_token(self, connection: Connection) -> bool:
        """Whether the caller sent the token; never raises."""
        sent = connection.headers.get("authorization", "")
        token = sent[len(TOKEN) :].encode() if sent[: len(TOKEN)].lower() == TOKEN else b""
        return bool(self._token) and hmac.compare_digest(token, self._token)


def sign_link(settings: WebSettings, job_id: int, lifetime: timedelta) -> str:
    """Sign a link that gives read access to the log of one job until it expires.

    Raises:
        SettingsError: `LOGFLUME_WEB__LINK_SECRET` is not set.
    """
    if settings.link_secret is None:
        raise SettingsError(
            "LOGFLUME_WEB__LINK_SECRET is not set; set it here and for logflume web to sign links"
        )
    claims = {"sub": str(job_id), "scope": LINK_SCOPE, "exp": datetime.now(UTC) + lifetime}
    return jwt.encode(claims, settings.link_secret.get_secret_value(), LINK_ALGORITHM)


def sign_part_token(settings: WebSettings, job_id: int, lifetime: timedelta) -> str:
    """Sign a token with which one run of a job stores its parts until it expires.

    Raises:
        SettingsError: `LOGFLUME_WEB__JWT_PRIVATE_KEY` is unset, unreadable, or not the key whose
            public key is `LOGFLUME_WEB__JWT_PUBLIC_KEY`.
    """
    name = "LOGFLUME_WEB__JWT_PRIVATE_KEY"
    if settings.jwt_private_key is None:
        raise SettingsError(f"{name} is not set; set it, or {name}_FILE, to issue tokens")
    pem = settings.jwt_private_key.get_secret_value().replace("\\n", "\n")
    # The random id makes each token, and so the attempt that it names, unique.
    claims = {"sub": str(job_id), "exp": datetime.now(UTC) + lifetime, "jti": uuid4().hex}
    try:
        token = jwt.encode(claims, pem, PART_ALGORITHM)
    except (ValueError, TypeError, jwt.PyJWTError, UnsupportedAlgorithm):
        raise SettingsError(f"{name} is not an RSA private key in PEM format") from None
    if settings.jwt_public_key and not Access(settings).is_for_job(token, str(job_id)):
        raise SettingsError(f"{name} does not belong to LOGFLUME_WEB__JWT_PUBLIC_KEY")
    return token


def _secret(setting: SecretStr | None) -> bytes:
    return setting.get_secret_value().encode() if setting else b""


def _public_key(pem: str | None) -> RSAPublicKey | None:
    if not pem:
        return None
    try:
        # In an environment variable, line breaks may be written as `\n`.
        key = load_pem_public_key(pem.replace("\\n", "\n").encode())
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, RSAPublicKey):
        raise SettingsError("LOGFLUME_WEB__JWT_PUBLIC_KEY is not an RSA public key in PEM format")
    if key.key_size < RSA_BITS:
        raise SettingsError(
            f"LOGFLUME_WEB__JWT_PUBLIC_KEY has {key.key_size} bits; use {RSA_BITS} or more"
        )
    return key
