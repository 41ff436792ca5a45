"""Checks that RabbitMQ drops no message of our queues: their type, limits and policies."""

import asyncio
import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import msgspec
import structlog

from drain.management import Management
from logflume import contract
from logflume.errors import ComponentError
from logflume.settings.servers import AmqpSettings

log = structlog.get_logger()

# Quorum queues without a limit have this one since RabbitMQ 4.
DEFAULT_DELIVERY_LIMIT, SINCE = 20, 4
TTL, EXPIRES, DELIVERY_LIMIT, OVERFLOW = "message-ttl", "expires", "delivery-limit", "overflow"
LENGTHS = {"max-length": "messages", "max-length-bytes": "bytes"}


class Queue(msgspec.Struct):
    """A queue, as the management API describes it."""

    name: str
    type: str = "classic"
    arguments: dict[str, Any] = {}


class Policy(msgspec.Struct, rename="kebab"):
    """A policy or operator policy."""

    name: str
    pattern: str
    definition: dict[str, Any]
    priority: int = 0
    apply_to: str = "all"

    def applies_to(self, queue: Queue) -> bool:
        """Whether it matches the queue, by its type and name."""
        if self.apply_to not in {"all", "queues", f"{queue.type}_queues"}:
            return False
        try:
            return re.search(self.pattern, queue.name) is not None
        except re.error:  # a pattern that only RabbitMQ's regular expressions know
            return False


class _Overview(msgspec.Struct):
    rabbitmq_version: str


class Findings(NamedTuple):
    """What is wrong with the queues, and whether one of them is a quorum queue."""

    problems: list[str]
    has_quorum: bool


class QueueChecker:
    """Checks queues through the management API, if the settings have its URL."""

    def __init__(self, amqp: AmqpSettings) -> None:
        self._api = Management(amqp) if amqp.management_url else None
        self._last = Findings([], has_quorum=False)

    async def check(self, names: Iterable[str]) -> Findings:
        """Check these queues and the dead-letter queue; finds nothing without a URL of the API.

        Raises:
            ComponentError: the API is unreachable or refuses.
        """
        if self._api is None:
            return self._last
        api, wanted = self._api, {*names, contract.DEAD_LETTER_QUEUE}
        overview, listed, *policies = await asyncio.gather(
            api.read("overview?columns=rabbitmq_version", _Overview),
            api.read(api.of_vhost("queues") + "?columns=name,type,arguments", list[Queue]),
            api.read(api.of_vhost("policies"), list[Policy]),
            self._operator_policies(api),
        )
        version = int(overview.rabbitmq_version.partition(".")[0])
        queues = [one for one in listed if one.name in wanted]
        problems = [
            problem
            for queue in queues
            for problem in find_problems(queue, policies, version, api.vhost)
        ]
        has_quorum = any(one.type == "quorum" for one in queues if one.name in {*names})
        self._last = Findings(problems, has_quorum)
        return self._last

    async def _operator_policies(self, api: Management) -> list[Policy]:
        try:
            return await api.read(api.of_vhost("operator-policies"), list[Policy])
        except ComponentError:  # the user may not read them
            return []

    async def report(self, names: Iterable[str]) -> Findings:
        """Log what is wrong; if the API fails, returns what was found last."""
        try:
            findings = await self.check(names)
        except ComponentError as error:
            log.warning("queues_not_checked", error=str(error), next="consumes them nevertheless")
            return self._last
        for problem in findings.problems:
            log.error("queue_may_drop_messages", error=problem, next="consumes it nevertheless")
        return findings

    async def close(self) -> None:
        """Close the connections to the API."""
        if self._api:
            await self._api.close()


class _Limits:
    """The values that apply to a queue, from its arguments, policy and operator policy."""

    def __init__(self, queue: Queue, policies: Iterable[list[Policy]]) -> None:
        arguments = {key.removeprefix("x-"): value for key, value in queue.arguments.items()}
        self._sources = {"the queue's arguments": arguments}
        self.policy: str | None = None
        """The user policy that applies: a second one would replace it or have no effect."""
        for index, kind in enumerate(policies):
            matching = [one for one in kind if one.applies_to(queue)]
            if matching:
                policy = max(matching, key=lambda one: one.priority)
                self._sources[f"policy {policy.name}"] = policy.definition
                if index == 0:
                    self.policy = policy.name

    def find(self, key: str) -> tuple[Any, str] | None:
        """The value, and where it is set; of several the smallest limit, as RabbitMQ does."""
        values = [(one[key], source) for source, one in self._sources.items() if key in one]
        limits = [one for one in values if not (isinstance(one[0], int) and one[0] < 0)]
        return min(limits or values, key=lambda one: one[0], default=None)


def find_problems(
    queue: Queue, policies: Iterable[list[Policy]], version: int, vhost: str = "/"
) -> list[str]:
    """What makes RabbitMQ drop messages of a queue, each with the change that prevents it.

    `policies` are the policies and the operator policies of the vhost: of each kind, the matching
    one with the highest priority applies. `version` is RabbitMQ's major version.
    """
    limits = _Limits(queue, policies)
    problems = [*_expiry(limits), *_lengths(queue, limits), *_type(queue, limits, version, vhost)]
    return [f"queue {queue.name} {problem}" for problem in problems]


def _expiry(limits: _Limits) -> Iterator[str]:
    if found := limits.find(TTL):
        yield f"deletes messages after {found[0]} ms: remove {TTL} from {found[1]}"
    if found := limits.find(EXPIRES):
        yield f"is deleted when unused for {found[0]} ms: remove {EXPIRES} from {found[1]}"


def _lengths(queue: Queue, limits: _Limits) -> Iterator[str]:
    overflow = (limits.find(OVERFLOW) or ("drop-head", ""))[0]
    if overflow == "reject-publish" and queue.name == contract.DEAD_LETTER_QUEUE:
        return  # the drain publishes with confirms, and holds what is refused
    for key, unit in LENGTHS.items():
        if found := limits.find(key):
            yield (
                f"drops messages beyond {found[0]} {unit} ({OVERFLOW}: {overflow}; runners publish "
                f"without confirms): remove {key} from {found[1]}"
            )


def _type(queue: Queue, limits: _Limits, version: int, vhost: str) -> Iterator[str]:
    if queue.type == "classic":
        return
    if queue.type != "quorum":
        yield f"is of type {queue.type}, which a drain cannot consume: declare it again"
        return
    limit, source = limits.find(DELIVERY_LIMIT) or (None, "")
    if limit is None and version >= SINCE:
        limit = DEFAULT_DELIVERY_LIMIT
    if limit is None or limit < 0:
        return
    if not source and limits.policy is not None:
        fix = f"add '\"{DELIVERY_LIMIT}\": -1' to policy {limits.policy}"
    elif not source:
        pattern = f"^{re.escape(queue.name)}$"
        fix = (
            f"run `rabbitmqctl set_policy -p {vhost} --apply-to queues logs '{pattern}' "
            f"'{{\"{DELIVERY_LIMIT}\": -1}}'`"
        )
    elif version >= SINCE:
        fix = f"set {DELIVERY_LIMIT} to -1 in {source}"
    else:
        fix = f"remove {DELIVERY_LIMIT} from {source}"
    yield (
        f"is a quorum queue that drops a message after {limit} deliveries, and each lost session "
        f"is one: {fix}"
    )
