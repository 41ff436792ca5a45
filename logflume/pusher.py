"""The official Pusher client's two halves, as they are used here."""

from typing import Any

import aiohttp
from pusher.authentication_client import (  # type: ignore[import-untyped]
    AuthenticationClient,
)
from pusher.http import Request, process_response  # type: ignore[import-untyped]
from pusher.pusher_client import PusherClient  # type: ignore[import-untyped]

from logflume.errors import ComponentError
from logflume.settings.groups import PusherSettings

REQUEST_SECONDS = 5
# A connection is let go of before servers do so: what is sent into one that they close is lost.
IDLE_SECONDS = 5


class Backend:
    """Sends the client's requests over connections that are kept.

    The client's own backend for aiohttp connects anew for each request.
    """

    def __init__(self, _: object) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def send_request(self, request: Request) -> Any:
        """Send a request; returns what the server answers, as JSON.

        Raises:
            PusherError, aiohttp.ClientError, TimeoutError, ValueError: it was not taken, or the
                answer makes no sense.
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
    """Make the client that sends events; None where no app is set."""
    return _make(PusherClient, settings)


def make_signer(settings: PusherSettings) -> AuthenticationClient | None:
    """Make the client that signs subscriptions and checks webhooks; None where no app is set."""
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
        ComponentError: the server took the request and refuses it.
        PusherError, aiohttp.ClientError, TimeoutError, ValueError: as the backend raises them.
    """
    answer = await sender.trigger_batch(batch)
    # Some refusals come with the status of a success, as an object that tells them.
    if isinstance(answer, dict) and answer.get("error"):
        raise ComponentError(f"Pusher refuses a batch: {answer['error']}")
