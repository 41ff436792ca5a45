"""The two clients of the official Pusher library: for events, and for signatures."""

from typing import Any

import aiohttp
from pusher.authentication_client import (  # type: ignore[import-untyped]
    AuthenticationClient,
)
from pusher.http import Request, process_response  # type: ignore[import-untyped]
from pusher.pusher_client import PusherClient  # type: ignore[import-untyped]

from logflume.errors import ComponentError
from logflume.settings.servers import PusherSettings

REQUEST_SECONDS = 5
# Close idle connections before the server does: a request on a closing connection is lost.
IDLE_SECONDS = 5


class Backend:
    """Sends the client's requests over persistent connections.

    The client's own backend for aiohttp opens a connection for each request.
    """

    def __init__(self, _: object) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def send_request(self, request: Request) -> Any:
        """Send a request; returns the response's JSON.

        Raises:
            PusherError, aiohttp.ClientError, TimeoutError, ValueError: the request failed, or the
                response is unreadable.
        """
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(keepalive_timeout=IDLE_SECONDS),
                timeout=aiohttp.ClientTimeout(total=REQUEST_SECONDS),
            )
        async with self._session.request(
            request.method,
            request.base_url + request.path,
            params=request.query_params,
            data=request.body,
            headers=request.headers,
        ) as response:
            return process_response(response.status, await response.text("utf-8"))

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()


def make_sender(settings: PusherSettings) -> PusherClient | None:
    """The client that sends events; None if no app is configured."""
    return _make(PusherClient, settings)


def make_signer(settings: PusherSettings) -> AuthenticationClient | None:
    """The client that signs subscriptions and verifies webhooks; None if no app is configured."""
    return _make(AuthenticationClient, settings)


def _make(kind: type, settings: PusherSettings) -> Any:
    if settings.app_id is None or settings.key is None or settings.secret is None:
        return None
    return kind(
        settings.app_id,
        settings.key,
        settings.secret.get_secret_value(),
        ssl=settings.tls,
        host=settings.host,
        port=settings.port,
        backend=Backend,
    )


async def trigger(sender: PusherClient, batch: list[dict[str, str]]) -> None:
    """Send the events of one batch call.

    Raises:
        ComponentError: the server refuses the events.
        PusherError, aiohttp.ClientError, TimeoutError, ValueError: as raised by the backend.
    """
    answer = await sender.trigger_batch(batch)
    # Some refusals have a success status and an object with the reason.
    if isinstance(answer, dict) and answer.get("error"):
        raise ComponentError(f"Pusher refuses a batch: {answer['error']}")
