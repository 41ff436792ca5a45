"""The shards of the sharded exchange: its policy, and the queues that the plugin makes of it."""

import asyncio
from http import HTTPStatus
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import httpx
import msgspec
import structlog
from aio_pika.abc import AbstractChannel
from aiormq.exceptions import ConnectionCommandInvalid

from logflume import contract
from logflume.errors import ComponentError, SettingsError
from logflume.settings.groups import AmqpSettings

log = structlog.get_logger()

LOOK_SECONDS = 15
ANSWER_SECONDS = 4
EXCHANGE_TYPE = "x-modulus-hash"
POLICY = "logs-sharding"
RULE: dict[str, Any] = {
    "pattern": f"^{contract.SHARDED_EXCHANGE}$",
    "definition": {"shards-per-node": 2},
    "priority": -8,
    "apply-to": "exchanges",
}
# As the plugin names the queues it makes, the node and a number behind it.
PREFIX = f"sharding: {contract.SHARDED_EXCHANGE} - "
# States of a queue that cannot be consumed now. One just made has none yet.
DOWN = ("crashed", "down", "minority", "stopped")


class _Queue(msgspec.Struct):
    name: str
    state: str | None = None


class Shards:
    """What RabbitMQ's management API tells of the shards.

    They are consumed by their own names. Consumers of the exchange's name (its pseudo-queue) are
    given the shards of one node only, and none of those that a smaller policy left behind.
    """

    def __init__(self, amqp: AmqpSettings) -> None:
        """Use the API that the settings name.

        Raises:
            SettingsError: they name none.
        """
        if amqp.management_url is None:
            raise SettingsError(
                "sharded queues need RabbitMQ's management API: set LOGFLUME_AMQP__MANAGEMENT_URL"
            )
        url = urlsplit(amqp.management_url.get_secret_value())
        self._where = f"RabbitMQ's management API at {url.hostname}:{url.port}"
        self._vhost = quote(unquote(urlsplit(amqp.url.get_secret_value()).path[1:]) or "/", safe="")
        self._client = httpx.AsyncClient(
            # Without user and password: httpx repeats URLs.
            base_url=f"{url.scheme}://{url.netloc.rpartition('@')[2]}{url.path.rstrip('/')}/api/",
            auth=(unquote(url.username or ""), unquote(url.password or "")),
            timeout=None,  # noqa: S113 - each call has one
            trust_env=False,
        )
        self._known: list[str] | None = None

    async def open(self, channel: AbstractChannel) -> list[str]:
        """Declare the sharded exchange, see to its policy, and return the queues to consume.

        A policy of this name that is there is left as it is: how many shards there are is for an
        operator to say. An API that stops answering later only costs a warning.

        Raises:
            ComponentError: the plugin or the shards are missing, or the API refuses us or is out
                of reach, from the start.
        """
        is_first = self._known is None
        try:
            await channel.declare_exchange(contract.SHARDED_EXCHANGE, EXCHANGE_TYPE, durable=True)
        except ConnectionCommandInvalid as error:
            raise ComponentError(
                f"RabbitMQ knows no exchange of type {EXCHANGE_TYPE}: run `rabbitmq-plugins enable "
                "rabbitmq_sharding` on each of its nodes"
            ) from error
        try:
            await self._ensure_policy()
        except ComponentError:
            if is_first:
                raise
        found = await self.find()
        if is_first and not found:
            raise ComponentError(
                f"the exchange {contract.SHARDED_EXCHANGE} has no shards: its policy in force is "
                f"not {POLICY}, or has no shards-per-node; see `rabbitmqctl list_policies`"
            )
        return found

    async def find(self) -> list[str]:
        """List the shards whose node is up, by name; where that fails, those last listed.

        Raises:
            ComponentError: it fails and none were listed before.
        """
        try:
            # Also those that no binding leads to any more: they may still hold parts.
            queues = await self._queues()
        except ComponentError as error:
            if self._known is None:
                raise
            log.warning("shards_unknown", error=str(error), kept=len(self._known))
            return self._known
        self._known = sorted(
            queue.name
            for queue in queues
            if queue.name.startswith(PREFIX) and queue.state not in DOWN
        )
        return self._known

    async def changed(self) -> None:
        """Return once the shards are others than those last listed."""
        known = self._known
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if await self.find() != known:
                return

    async def close(self) -> None:
        """Close the connections to the API."""
        await self._client.aclose()

    async def _ensure_policy(self) -> None:
        path = f"policies/{self._vhost}/{POLICY}"
        found = await self._call("GET", path, expected=HTTPStatus.NOT_FOUND)
        if found.status_code == HTTPStatus.NOT_FOUND:
            await self._call("PUT", path, RULE)
            log.info("shards_policy_made", policy=POLICY, **RULE["definition"])

    async def _queues(self) -> list[_Queue]:
        answer = await self._call("GET", f"queues/{self._vhost}?columns=name,state")
        try:
            return msgspec.json.decode(answer.content, type=list[_Queue])
        except msgspec.DecodeError as error:
            raise ComponentError(f"{self._where}: answers no list of queues: {error}") from error

    async def _call(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
        expected: HTTPStatus | None = None,
    ) -> httpx.Response:
        """Call the API; its answer is a success, or has the status that is `expected`.

        Raises:
            ComponentError: it answers otherwise, or is out of reach.
        """
        try:
            # A whole answer: httpx' own time-outs begin anew with each piece of it.
            async with asyncio.timeout(ANSWER_SECONDS):
                answer = await self._client.request(method, path, json=body)
        except (httpx.HTTPError, TimeoutError) as error:
            said = str(error) or type(error).__name__
            raise ComponentError(f"{self._where}: {said}") from error
        if answer.is_success or answer.status_code == expected:
            return answer
        raise ComponentError(
            f"{self._where}: answers {answer.status_code} to {method} {path}; its user must have "
            "the tag policymaker and all permissions of the vhost"
        )
