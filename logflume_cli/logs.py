"""`logflume logs`: prints a log, wherever it is stored, over the HTTP API."""

import os
import re
import signal
import sys
import time
from base64 import b64decode
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import chain

import click

from logflume.backoff import Backoff
from logflume.errors import ComponentError
from logflume_cli.clean import Cleaner, plain
from logflume_cli.job_id import JobId
from logflume_cli.terminal import echo
from logflume_cli.web_client import WebClient

TAIL_BYTES = 256 * 1024
MAX_BACKOFF_SECONDS = 5.0


class Pattern(click.ParamType["re.Pattern[str]"]):
    """A regular expression; without capitals it ignores case, as that of journalctl."""

    name = "pattern"

    def convert(
        self, value: str, param: click.Parameter | None, ctx: click.Context | None
    ) -> "re.Pattern[str]":
        """Compile it; a usage error if it is invalid."""
        try:
            return re.compile(value, 0 if any(map(str.isupper, value)) else re.IGNORECASE)
        except re.error as error:
            self.fail(f"not a regular expression: {error}", param, ctx)


@click.command()
@click.argument("job_id", type=JobId())
@click.option(
    "-f", "--follow", is_flag=True, help="Print new output as it arrives; ends with the log."
)
@click.option(
    "-n", "--tail", type=click.IntRange(0), metavar="LINES", help="Print only the last lines."
)
@click.option(
    "-g",
    "--grep",
    "pattern",
    metavar="REGEX",
    type=Pattern(),
    help="Print only matching lines; ignores case unless the expression has capitals.",
)
@click.option(
    "--attempt", metavar="UUID", help="Print an earlier attempt; `logflume show` lists them."
)
@click.option(
    "--raw", is_flag=True, help="Print the exact bytes, also those that may harm a terminal."
)
def logs(  # noqa: PLR0913 - the options
    job_id: int,
    *,
    follow: bool,
    tail: int | None,
    pattern: "re.Pattern[str] | None",
    attempt: str | None,
    raw: bool,
) -> None:
    """Print the log of JOB_ID, wherever it is stored.

    Needs LOGFLUME_WEB__URL and LOGFLUME_WEB__AUTH_TOKEN. Colours are printed on a terminal, unless
    NO_COLOR is set; other control sequences are removed.
    """
    if follow and attempt is not None:
        raise click.UsageError("--follow and --attempt exclude each other: earlier attempts ended")
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    log = _Log(WebClient.load(), job_id, attempt)
    cleaner = None if raw else Cleaner(colours=sys.stdout.isatty() and "NO_COLOR" not in os.environ)
    write = sys.stdout.buffer.write
    try:
        for piece in log.read(tail, pattern, follow=follow):
            write(cleaner.feed(piece).encode() if cleaner else piece)
            sys.stdout.buffer.flush()
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    finally:
        write(cleaner.end().encode() if cleaner else b"")


class _Log:
    """A log as the web serves it."""

    def __init__(self, web: WebClient, job_id: int, attempt: str | None) -> None:
        self._web = web
        self._path = f"/logs/{job_id}"
        self._attempt = attempt
        self._cursor: str | None = None  # where the stream continues; None: it has ended

    def read(
        self, tail: int | None, pattern: "re.Pattern[str] | None", *, follow: bool
    ) -> Iterator[bytes]:
        """Yield its bytes; with a pattern, the lines that match."""
        size = None
        if follow:
            outline = self._web.json(f"{self._path}/outline")
            size = outline["bytes"]
            self._cursor = None if outline["ended"] else outline["cursor"]
        new = self._follow()
        if tail is None:
            everything = chain(self._bytes(size), new)
            return _matching(everything, pattern) if pattern else everything
        if pattern is None:
            return chain(self._last(tail, size), new)
        last = deque(_matching(self._bytes(size), pattern), tail)
        return chain(last, _matching(new, pattern))

    def _bytes(self, size: int | None) -> Iterator[bytes]:
        """All bytes, or the first `size`."""
        if size != 0:
            yield from self._range(f"0-{size - 1}" if size else "")

    def _last(self, lines: int, size: int | None) -> Iterator[bytes]:
        """The last lines of the first `size` bytes."""
        if not lines or size == 0:
            return
        wanted = TAIL_BYTES
        while True:
            span = f"-{wanted}" if size is None else f"{max(size - wanted, 0)}-{size - 1}"
            text = b"".join(self._range(span))
            found = text.split(b"\n")
            chosen = found[-lines - (not found[-1]) :]
            if len(chosen) < len(found) or len(text) < wanted:
                yield b"\n".join(chosen)
                return
            wanted *= 8

    def _range(self, span: str) -> Iterator[bytes]:
        headers = {"Range": f"bytes={span}"} if span else {}
        with self._web.get(f"{self._path}/raw", headers, attempt=self._attempt) as response:
            yield from self._web.pieces(response)

    def _follow(self) -> Iterator[bytes]:
        """Yield new parts until the log ends; reconnects whenever the web is away."""
        backoff, is_away = Backoff(MAX_BACKOFF_SECONDS), False
        while self._cursor is not None:
            try:
                for content in self._stream(self._cursor):
                    is_away = False
                    backoff.reset()
                    yield content
            except ComponentError as error:
                if not is_away:
                    echo(f"logflume: {error}; reconnects", err=True)
                is_away = True
            if self._cursor is not None:
                time.sleep(backoff.next())

    def _stream(self, cursor: str) -> Iterator[bytes]:
        """Yield new parts until the log or the connection ends."""
        headers = {"Last-Event-ID": cursor}
        with self._web.get(f"{self._path}/stream", headers, encoding="base64") as response:
            for name, id_, data in self._web.events(response):
                self._cursor = None if name == "final" else id_ or self._cursor
                if name in ("final", "reconnect"):
                    return
                if name == "reset":
                    echo("logflume: the log was replaced; it starts again", err=True)
                elif not data["in_order"]:
                    echo("logflume: a late part, which belongs further up:", err=True)
                yield b64decode(data.get("content", ""))


def _matching(pieces: Iterable[bytes], pattern: "re.Pattern[str]") -> Iterator[bytes]:
    """Yield the lines whose visible text matches."""
    rest = b""
    for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        yield from (line + b"\n" for line in lines if pattern.search(plain(line)))
    if rest and pattern.search(plain(rest)):
        yield rest
