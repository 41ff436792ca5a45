"""Calls the API of `logflume web` with the standard library, so that commands start quickly."""

import http.client
import json
import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote, urlencode, urlsplit

from logflume.errors import ComponentError, LogflumeError, SettingsError, UnknownLog
from logflume.ship.settings import value

URL, TOKEN = "LOGFLUME_WEB__URL", "LOGFLUME_WEB__AUTH_TOKEN"
PIECE_BYTES = 256 * 1024
TIMEOUT_SECONDS = 60.0  # streams have a heartbeat every 15 s


class WebClient:
    """One web's address and token; each call has a connection of its own."""

    def __init__(self, url: str, token: str) -> None:
        self.url = url.rstrip("/")
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise SettingsError(f"{URL}: not a URL of the form https://host:port")
        self._is_tls = parts.scheme == "https"
        self._address = parts.hostname, parts.port
        self._path = parts.path
        self._headers = {"Authorization": f"token {token}"} if token else {}

    @classmethod
    def load(cls) -> Self:
        """Read address and token from the environment, or from the local stack's settings.

        Raises:
            SettingsError: the address is not set.
        """
        stack = _stack()
        url = value(URL) or stack.get("url", "")
        if not url:
            raise SettingsError(f"{URL} is not set; set it to the address of logflume web")
        return cls(url, value(TOKEN) or stack.get("auth_token", ""))

    @contextmanager
    def get(
        self, path: str, headers: dict[str, str] | None = None, **query: object
    ) -> Iterator[http.client.HTTPResponse]:
        """Open a response with status 2xx; `query` values that are None are left out.

        Raises:
            ComponentError: the web cannot be reached or answers 5xx: a retry may help.
            UnknownLog: the log does not exist.
            LogflumeError: the web refuses the request.
        """
        sent = urlencode({name: value for name, value in query.items() if value is not None})
        path = quote(f"{self._path}{path}") + (f"?{sent}" if sent else "")
        connection = self._connect()
        try:
            with self._reaching():
                connection.request("GET", path, headers=self._headers | (headers or {}))
                response = connection.getresponse()
                if response.status >= 300:
                    raise self._error(response)
            yield response
        finally:
            connection.close()

    def pieces(self, response: http.client.HTTPResponse) -> Iterator[bytes]:
        """Yield the body as it arrives.

        Raises:
            ComponentError: the connection was lost, or the log changed meanwhile.
        """
        while True:
            with self._reaching():
                piece = response.read1(PIECE_BYTES)
            if piece:
                yield piece
            elif response.length:
                raise ComponentError(f"{self.url}: the response ended early; read the log again")
            else:
                return

    def json(self, path: str, **query: object) -> Any:
        """Return a JSON response; raises as `get`."""
        with self.get(path, None, **query) as response, self._reaching():
            return json.loads(response.read())

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        try:
            yield
        except (OSError, http.client.HTTPException) as error:
            reason = error if str(error) else type(error).__name__
            raise ComponentError(
                f"{self.url}: {reason}; is {URL} the address of logflume web?"
            ) from error

    def events(self, response: http.client.HTTPResponse) -> Iterator[tuple[str, str, Any]]:
        """Yield server-sent events: name, id (maybe empty) and data; raises as `pieces`."""
        fields: dict[str, str] = {}
        while True:
            with self._reaching():
                line = response.readline().decode()
            if not line:
                raise ComponentError(f"{self.url}: the stream ended early")
            name, _, value = line.rstrip("\r\n").partition(": ")
            if name:
                fields[name] = value
            elif "event" in fields:
                yield fields["event"], fields.get("id", ""), json.loads(fields["data"])
                fields = {}

    def _connect(self) -> http.client.HTTPConnection:
        if not self._is_tls:
            return http.client.HTTPConnection(*self._address, timeout=TIMEOUT_SECONDS)
        context = ssl.create_default_context()
        return http.client.HTTPSConnection(*self._address, timeout=TIMEOUT_SECONDS, context=context)

    def _error(self, response: http.client.HTTPResponse) -> LogflumeError:
        text = response.read(65536)
        try:
            reason = str(json.loads(text)["error"])
        except (ValueError, KeyError, TypeError):
            reason = response.reason
        if response.status == 404:
            return UnknownLog(f"{reason}; `logflume list` lists recent logs")
        if response.status == 403:
            reason += f"; set {TOKEN} to the token of logflume web"
        kind = ComponentError if response.status >= 500 else LogflumeError
        return kind(f"{self.url}: {response.status} {reason}")


def _stack() -> dict[str, str]:
    """The web settings of the local stack, which `logflume.settings` finds in the same place."""
    checkout = Path(__file__).resolve().parents[1]
    folder = os.environ.get("LOGFLUME_STACK__DATA_DIR") or checkout / ".stack"
    try:
        return dict(json.loads((Path(folder) / "settings.json").read_text())["web"])
    except (OSError, ValueError, KeyError):
        return {}
