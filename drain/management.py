"""RabbitMQ's management API."""

import asyncio
from http import HTTPStatus
from typing import Any, TypeVar
from urllib.parse import quote, unquote, urlsplit

import httpx
import msgspec

from logflume.errors import ComponentError, SettingsError
from logflume.settings.servers import AmqpSettings

REQUEST_SECONDS = 4

T = TypeVar("T")


class Management:
    """Calls the API for the vhost of the parts."""

    def __init__(self, amqp: AmqpSettings) -> None:
        """Create a client.

        Raises:
            SettingsError: the settings have no URL of the API.
        """
        if amqp.management_url is None:
            raise SettingsError(
                "sharded queues need RabbitMQ's management API; set LOGFLUME_AMQP__MANAGEMENT_URL"
            )
        url = urlsplit(amqp.management_url.get_secret_value())
        self._where = f"RabbitMQ's management API at {url.hostname}:{url.port}"
        self.vhost = unquote(urlsplit(amqp.url.get_secret_value()).path[1:]) or "/"
        self._client = httpx.AsyncClient(
            # Without user and password, because httpx logs URLs.
            base_url=f"{url.scheme}://{url.netloc.rpartition('@')[2]}{url.path.rstrip('/')}/api/",
            auth=(unquote(url.username or ""), unquote(url.password or "")),
            timeout=REQUEST_SECONDS,
            trust_env=False,
        )

    def of_vhost(self, what: str) -> str:
        """The path of the vhost's `queues`, `policies` or the like."""
        return f"{what}/{quote(self.vhost, safe='')}"

    async def read(self, path: str, type_: type[T]) -> T:
        """Read JSON of this type.

        Raises:
            ComponentError: the API is unreachable, refuses, or returns something else.
        """
        response = await self.call("GET", path)
        try:
            return msgspec.json.decode(response.content, type=type_)
        except msgspec.DecodeError as error:
            raise ComponentError(
                f"{self._where}: unexpected response to GET {path.partition('?')[0]}: {error}"
            ) from error

    async def call(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
        expected: HTTPStatus | None = None,
    ) -> httpx.Response:
        """Call the API; the response is a success or has the status `expected`.

        Raises:
            ComponentError: any other response, or the API is unreachable.
        """
        try:
            # A limit for the complete response: httpx's own time-outs restart with each chunk. It
            # is the longer one, because httpx leaves sockets open when it is cancelled.
            async with asyncio.timeout(REQUEST_SECONDS + 1):
                response = await self._client.request(method, path, json=body)
        except (httpx.HTTPError, TimeoutError) as error:
            reason = str(error) or type(error).__name__
            raise ComponentError(f"{self._where}: {reason}") from error
        if response.is_success or response.status_code == expected:
            return response
        raise ComponentError(
            f"{self._where}: status {response.status_code} for {method} {path}; its user needs the "
            "tag policymaker and all permissions in the vhost"
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()
