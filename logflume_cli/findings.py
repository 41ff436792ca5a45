"""What `logflume doctor` finds: runs checks, and gives advice that fits the cause of an error."""

import asyncio
import json
import re
import ssl
from collections.abc import Awaitable, Callable, Iterable, Iterator

import asyncpg
import click
import msgspec
from aiormq.exceptions import AuthenticationError, ProbableAuthenticationError
from botocore.exceptions import ClientError
from pusher.errors import PusherBadAuth, PusherForbidden  # type: ignore[import-untyped]
from rich.console import Console
from rich.table import Table
from rich.text import Text
from temporalio.service import RPCError, RPCStatusCode

from logflume.archive.bucket import error_code
from logflume.errors import LogflumeError
from logflume_cli.terminal import printable

CHECK_SECONDS = 10
WRONG_LOGIN = (
    AuthenticationError,
    ProbableAuthenticationError,
    asyncpg.InvalidAuthorizationSpecificationError,  # and wrong passwords
    PusherBadAuth,
    PusherForbidden,
)
WRONG_KEYS = {"InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken"}


def _is(*types: type[BaseException]) -> Callable[[BaseException], bool]:
    return lambda error: isinstance(error, types)


def _is_code(*codes: str) -> Callable[[BaseException], bool]:
    return lambda error: isinstance(error, ClientError) and error_code(error) in codes


def _is_status(*statuses: RPCStatusCode) -> Callable[[BaseException], bool]:
    return lambda error: isinstance(error, RPCError) and error.status in statuses


def _is_unreachable(error: BaseException) -> bool:
    # The Temporal library raises RuntimeError; the names of the others contain Connect or Timeout.
    return isinstance(error, OSError | RuntimeError) or bool(
        re.search("connect|timeout", type(error).__name__, re.IGNORECASE)
    )


# The first that applies to an error or one of its causes.
ADVICE = (
    (_is(*WRONG_LOGIN), "User or password are wrong, or may not do this: correct {setting}."),
    (
        _is(asyncpg.InvalidCatalogNameError),
        "Create the database and run `logflume db deploy`, or correct {setting}.",
    ),
    (_is(ssl.SSLError), "Check the certificates, and whether both sides use TLS: {setting}."),
    (_is_code("NoSuchBucket", "404"), "Create the bucket, or correct LOGFLUME_S3__BUCKET."),
    (
        _is_code(*WRONG_KEYS),
        "Correct LOGFLUME_S3__ACCESS_KEY and SECRET_KEY, and check this machine's clock.",
    ),
    (
        _is_code("AccessDenied", "403"),
        "Grant these keys s3:GetObject, s3:PutObject, s3:DeleteObject and s3:ListBucket.",
    ),
    (
        _is_status(RPCStatusCode.NOT_FOUND),
        (
            "Create the namespace (`temporal operator namespace create`), or correct "
            "LOGFLUME_TEMPORAL__NAMESPACE."
        ),
    ),
    (
        _is_status(RPCStatusCode.PERMISSION_DENIED, RPCStatusCode.UNAUTHENTICATED),
        "Correct LOGFLUME_TEMPORAL__API_KEY, or CERT_FILE and KEY_FILE.",
    ),
    (_is_unreachable, "Is it running, and reachable from here? Otherwise correct {setting}."),
)


class Row(msgspec.Struct):
    """The outcome of a check: what was found and, if that is a problem, what to do."""

    check: str
    ok: bool
    detail: str = ""
    fix: str = ""


def make_row(check: str, problem: str, fix: str, result: str) -> Row:
    """Return a row that has failed with `problem` and `fix`; with no problem, one with `result`."""
    return Row(check, not problem, problem or result, fix if problem else "")


class Problem(LogflumeError):
    """A check failed for a reason that it knows a fix for."""

    def __init__(self, text: str, fix: str) -> None:
        """`text` says what is wrong, `fix` what to do."""
        super().__init__(text)
        self.fix = fix


class Report:
    """The rows of all checks so far."""

    def __init__(self) -> None:
        self.rows: list[Row] = []

    async def run(
        self, name: str, check: Awaitable[str | Iterable[Row]], setting: str = "",
        seconds: float = CHECK_SECONDS,
    ) -> bool:  # fmt: skip
        """Add what a check returns, or the error it raises; False if it raised one.

        `setting` names the settings that the connection of the check uses.
        """
        try:
            async with asyncio.timeout(seconds):
                found = await check
        except (LogflumeError, asyncpg.PostgresError) as error:
            self.rows.append(Row(name, ok=False, detail=str(error), fix=advice(error, setting)))
            return False
        except TimeoutError as error:
            detail = f"no answer within {seconds:.0f} s"
            self.rows.append(Row(name, ok=False, detail=detail, fix=advice(error, setting)))
            return False
        self.rows += [Row(name, ok=True, detail=found)] if isinstance(found, str) else found
        return True

    def skip(self, because: str, *names: str) -> None:
        """Add checks that are impossible because another one failed."""
        detail = f"not checked, because the check of {because} failed"
        self.rows += [Row(name, ok=False, detail=detail) for name in names]

    def print(self, *, as_json: bool) -> None:
        """Write the rows to standard output, as a table or as JSON."""
        if as_json:
            click.echo(json.dumps(msgspec.to_builtins(self.rows), indent=2))
            return
        table = Table("check", "", "result, or problem and fix", box=None)
        for row in self.rows:
            state = Text("ok", "green") if row.ok else Text("failed", "red")
            lines = (printable(line) for line in (row.detail, row.fix) if line)
            table.add_row(row.check, state, Text("\n".join(lines)))
        Console(soft_wrap=True).print(table)


def advice(error: BaseException, setting: str) -> str:
    """What to do about an error, by its cause; `setting` names what was used to connect."""
    if isinstance(error, Problem):
        return error.fix
    causes = list(_causes(error))
    found = (text for applies, text in ADVICE if any(map(applies, causes)))
    return next(found, "").format(setting=setting) if setting else ""


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__
