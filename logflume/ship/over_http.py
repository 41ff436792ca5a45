"""Parts over HTTP: `PUT /log-parts/{job_id}/{number}` with the job's own token."""

import http.client
import json
import ssl
import time
from base64 import b64encode, urlsafe_b64decode
from collections.abc import Callable
from urllib.parse import urlsplit

from logflume.errors import ComponentError, PermanentError, SettingsError
from logflume.ship.transport import Answer, PartTooLarge, Total

FLUSH_HEADER = "Logflume-Flush-Seconds"
MISSING_HEADER = "Logflume-Missing-Parts"
# Servers close connections that are idle for longer.
IDLE_SECONDS = 4.0
# Limits of what a response may ask for.
MAX_SECONDS = 60.0
MAX_MISSING = 10_000
RETRY = {408, 425, 429}


def token_job_id(token: str) -> int:
    """The job that a token is for.

    Raises:
        SettingsError: it is not the token of a job.
    """
    try:
        payload = token.split(".")[1]
        return int(json.loads(urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["sub"])
    except (IndexError, ValueError, KeyError, TypeError):
        raise SettingsError(
            "LOGFLUME_SHIP__TOKEN is not the token of a job: `logflume token JOB_ID` issues one"
        ) from None


class HttpTransport:
    """Sends parts over one connection, opened on demand."""

    def __init__(self, url: str, token: str, job_id: int) -> None:
        """Parse the address.

        Raises:
            SettingsError: it is not one.
        """
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise SettingsError("LOGFLUME_WEB__URL: not an address such as https://logs.example")
        self._address = (parts.hostname, parts.port)
        self._is_tls = parts.scheme == "https"
        self._where = url.rstrip("/")
        self._path = f"{parts.path.rstrip('/')}/log-parts/{job_id}"
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        self._connection: http.client.HTTPConnection | None = None
        self._used_at = 0.0
        self.retry_after = 0.0

    def send(self, number: int, content: bytes, total: Total | None, timeout: float) -> Answer:
        """Send a part, as `Transport.send` describes."""
        body = {
            "@type": "log_part",
            "content": b64encode(content).decode(),
            "encoding": "base64",
            "final": total is not None,
        }
        if total:
            body["total"] = total
        try:
            status, headers, text = self._put(f"{self._path}/{number}", json.dumps(body), timeout)
        except (OSError, http.client.HTTPException) as error:
            self._close()
            raise ComponentError(f"{self._where}: {error or type(error).__name__}") from error
        self.retry_after = _seconds(headers.get("Retry-After")) or 0
        if status in {200, 204}:
            return Answer(
                _seconds(headers.get(FLUSH_HEADER)), _numbers(headers.get(MISSING_HEADER))
            )
        reason = f"{self._where}: {status} {_reason(text)}"
        if status == 413:
            raise PartTooLarge(reason)
        raise (ComponentError if status in RETRY or status >= 500 else PermanentError)(reason)

    def _put(
        self, path: str, body: str, timeout: float
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        if time.monotonic() - self._used_at > IDLE_SECONDS:
            self._close()
        if self._connection is None:
            self._connection = self._connect(timeout)
        elif self._connection.sock:
            self._connection.sock.settimeout(timeout)
        self._connection.request("PUT", path, body, self._headers)
        response = self._connection.getresponse()
        text = response.read(65536)
        self._used_at = time.monotonic()
        if response.will_close or not response.isclosed():
            self._close()
        return response.status, response.headers, text

    def _connect(self, timeout: float) -> http.client.HTTPConnection:
        if not self._is_tls:
            return http.client.HTTPConnection(*self._address, timeout=timeout)
        context = ssl.create_default_context()
        return http.client.HTTPSConnection(*self._address, timeout=timeout, context=context)

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def idle(self, wait: Callable[[], object]) -> None:
        """Wait: nothing else is to be done meanwhile."""
        wait()


def _seconds(text: str | None) -> float | None:
    """A header with a number of seconds; None if it is absent or something else, e.g. a date."""
    try:
        return min(max(float(text or ""), 0), MAX_SECONDS)
    except ValueError:
        return None


def _numbers(text: str | None) -> tuple[int, ...]:
    """The numbers in a list such as `3,7-9`; those that are not are ignored."""
    numbers: list[int] = []
    for item in (text or "").split(","):
        first, _, last = item.strip().partition("-")
        if first.isdecimal() and (last or first).isdecimal():
            end = min(int(last or first) + 1, int(first) + MAX_MISSING)
            numbers += range(int(first), end)
    return tuple(numbers[:MAX_MISSING])


def _reason(text: bytes) -> str:
    """The error in a response, or the beginning of another text, on one line."""
    try:
        reason = str(json.loads(text)["error"])
    except (ValueError, KeyError, TypeError):
        reason = text[:200].decode("utf-8", "replace")
    return "".join(one if one.isprintable() else " " for one in reason)[:500]
