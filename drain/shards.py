"""The sharded exchange: its policy, and the queues (shards) that the plugin creates."""

import asyncio
from http import HTTPStatus
from typing import Any

import msgspec
import structlog
from aio_pika.abc import AbstractChannel
from aiormq.exceptions import ConnectionCommandInvalid

from drain.management import Management
from logflume import contract
from logflume.errors import ComponentError
from logflume.settings.servers import AmqpSettings

log = structlog.get_logger()

POLL_SECONDS = 15
EXCHANGE_TYPE = "x-modulus-hash"
POLICY = "logs-sharding"
RULE: dict[str, Any] = {
    "pattern": f"^{contract.SHARDED_EXCHANGE}$",
    "definition": {"shards-per-node": 2},
    "priority": -8,
    "apply-to": "exchanges",
}
# The plugin names queues with this prefix, the node and a number.
PREFIX = f"sharding: {contract.SHARDED_EXCHANGE} - "
# States of queues that cannot be consumed now. A new queue has no state yet.
DOWN = ("crashed", "down", "minority", "stopped")


class _Queue(msgspec.Struct):
    name: str
    state: str | None = None


class Shards:
    """Finds the shards through RabbitMQ's management API.

    They are consumed by their own names: consumers of the pseudo-queue (the exchange's name) get
    the shards of one node only, and none of those that a smaller policy left behind.
    """

    def __init__(self, amqp: AmqpSettings) -> None:
        """Create a client of the API.

        Raises:
            SettingsError: the settings have no URL of it.
        """
        self._api = Management(amqp)
        self._known: list[str] | None = None

    async def open(self, channel: AbstractChannel) -> list[str]:
        """Declare the sharded exchange, create its policy, and return the queues to consume.

        An existing policy of this name is not changed: operators set the number of shards. Once
        the first call succeeded, failures of the API are only logged.

        Raises:
            ComponentError: the plugin or the shards are missing, or the API is unreachable or
                refuses at the first call.
        """
        is_first = self._known is None
        try:
            await channel.declare_exchange(contract.SHARDED_EXCHANGE, EXCHANGE_TYPE, durable=True)
        except ConnectionCommandInvalid as error:
            raise ComponentError(
                f"RabbitMQ does not support exchanges of type {EXCHANGE_TYPE}; run "
                "`rabbitmq-plugins enable rabbitmq_sharding` on each node"
            ) from error
        try:
            await self._ensure_policy()
        except ComponentError:
            if is_first:
                raise
        shards = await self.find()
        if is_first and not shards:
            raise ComponentError(
                f"the exchange {contract.SHARDED_EXCHANGE} has no shards: its effective policy is "
                f"not {POLICY}, or lacks shards-per-node; see `rabbitmqctl list_policies`"
            )
        return shards

    async def find(self) -> list[str]:
        """The names of the shards whose node is up; if the API fails, those last found.

        Raises:
            ComponentError: the API fails and none were found before.
        """
        try:
            # Including shards without a binding: they may still hold parts.
            queues = await self._api.read(
                self._api.of_vhost("queues") + "?columns=name,state", list[_Queue]
            )
        except ComponentError as error:
            if self._known is None:
                raise
            log.warning("shards_unknown", error=str(error), consumed=len(self._known))
            return self._known
        self._known = sorted(
            queue.name
            for queue in queues
            if queue.name.startswith(PREFIX) and queue.state not in DOWN
        )
        return self._known

    async def changed(self) -> None:
        """Return once the shards differ from those last found."""
        known = self._known
        while True:
            await asyncio.sleep(POLL_SECONDS)
            if await self.find() != known:
                return

    async def close(self) -> None:
        """Close the connections to the API."""
        await self._api.close()

    async def _ensure_policy(self) -> None:
        path = f"{self._api.of_vhost('policies')}/{POLICY}"
        policy = await self._api.call("GET", path, expected=HTTPStatus.NOT_FOUND)
        if policy.status_code == HTTPStatus.NOT_FOUND:
            await self._api.call("PUT", path, RULE)
            log.info("shards_policy_created", policy=POLICY, **RULE["definition"])
