"""The kinds of faults, their seeded schedule, and their injection."""

import asyncio
import random
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import psutil

from logflume_cli.devstack.home import USER
from tests.support.soak.system import COMPONENTS, OURS, SERVERS, System

T = TypeVar("T")

PARTITIONS = ("cut", "stall", "delay", "half-close", "break-off")
FILLS = (
    ("disk-full", "s3"),
    ("statement-timeout", "postgres"),
    ("connection-limit", "postgres"),
)
# Per round, in which each component is killed twice.
OTHERS = 2
TERM_SECONDS = 40
# Only sessions of our processes.
END_BACKENDS = f"""
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = '{USER}' AND usename LIKE 'app_%'
"""


@dataclass(frozen=True)
class Fault:
    """A kind of fault, its targets and its duration in seconds."""

    kind: str
    targets: tuple[str, ...]
    seconds: float

    def __str__(self) -> str:
        return f"{self.kind} {' '.join(self.targets)} {self.seconds:.1f} s"

    @property
    def target(self) -> str:
        """The only target; just kills have several."""
        [target] = self.targets
        return target


def schedule(seed: str) -> Iterator[Fault]:
    """The endless fault sequence of a seed: rounds of kills with other faults in between."""
    chance = random.Random(f"{seed} faults")
    others: list[tuple[str, str]] = []
    while True:
        faults = [*_kills(chance), *_kills(chance)]
        for _ in range(OTHERS):
            others = others or _shuffled(_others(), chance)
            kind, target = others.pop()
            seconds = 0 if kind == "restart" else round(chance.uniform(1, 6), 1)
            faults.insert(chance.randrange(len(faults)), Fault(kind, (target,), seconds))
        yield from faults


def _kills(chance: random.Random) -> Iterator[Fault]:
    """Kill each component once, some together, for zero or one second."""
    left = _shuffled(COMPONENTS, chance)
    while left:
        count = chance.choice((1, 3, 7, 7))
        yield Fault("kill", tuple(left[:count]), chance.choice((0, 0, 0, 1)))
        left = left[count:]


def short(seed: str) -> list[Fault]:
    """Each component killed once, some together, and some of the other faults."""
    chance = random.Random(f"{seed} faults")
    kills = [("drain", "rabbitmq"), ("worker", "postgres"), ("web", "temporal", "s3")]
    others = [
        (chance.choice(PARTITIONS), chance.choice(list(SERVERS))),
        ("stop", chance.choice(OURS)),
        ("statement-timeout", "postgres"),
    ]
    faults = [Fault("kill", targets, 0) for targets in kills]
    faults += [Fault(kind, (target,), 0.5) for kind, target in others]
    return _shuffled(faults, chance)


def _others() -> list[tuple[str, str]]:
    kinds = ("stop", "restart", *PARTITIONS)
    return [(kind, target) for kind in kinds for target in COMPONENTS] + [*FILLS] * 3


def _shuffled(items: Sequence[T], chance: random.Random) -> list[T]:
    return chance.sample(items, len(items))


class Injector:
    """Injects faults and undoes them."""

    def __init__(self, system: System) -> None:
        self._system = system

    def can(self, fault: Fault) -> bool:
        return fault.kind != "disk-full" or self._system.store_is_small

    async def inject(self, fault: Fault) -> None:
        """Inject a fault, wait, undo it; does not wait for recovery."""
        if fault.kind in PARTITIONS:
            await self._partition(fault)
        else:
            await getattr(self, "_" + fault.kind.replace("-", "_"))(fault)

    async def _kill(self, fault: Fault) -> None:
        ours = [self._system.ours[name] for name in fault.targets if name in OURS]
        servers = [name for name in fault.targets if name not in OURS]
        tops = [process for name in servers for process in self._system.processes(name)[:1]]
        for process in ours:
            process.may_run.clear()
            process.send(signal.SIGKILL)
        for top in tops:
            top.kill()
        await asyncio.to_thread(psutil.wait_procs, tops, 10)
        await asyncio.sleep(fault.seconds)
        for process in ours:
            process.may_run.set()
        await self._system.up(servers)

    async def _restart(self, fault: Fault) -> None:
        if fault.target in OURS:
            process = self._system.ours[fault.target]
            process.send(signal.SIGTERM)
            async with asyncio.timeout(TERM_SECONDS):
                code = await process.ended()
            assert code in (0, -signal.SIGTERM), f"{fault.target} ended with {code}"
            return
        await self._system.stack.down([fault.target])
        await self._system.up([fault.target])

    async def _stop(self, fault: Fault) -> None:
        if fault.target in OURS:
            process = self._system.ours[fault.target]
            process.send(signal.SIGSTOP)
            await asyncio.sleep(fault.seconds)
            process.send(signal.SIGCONT)
            return
        stopped = self._system.processes(fault.target)
        _signal(stopped, signal.SIGSTOP)
        await asyncio.sleep(fault.seconds)
        _signal(stopped, signal.SIGCONT)

    async def _partition(self, fault: Fault) -> None:
        proxies = [proxy for way, proxy in self._system.ways.items() if fault.target in way]
        for proxy in proxies:
            proxy.turn(fault.kind, delay=0.1 if fault.kind == "delay" else 0)
        await asyncio.sleep(fault.seconds)
        for proxy in proxies:
            proxy.turn("flow")

    async def _disk_full(self, fault: Fault) -> None:
        await asyncio.to_thread(self._system.fill_store)
        await asyncio.sleep(fault.seconds)
        self._system.empty_store()

    async def _statement_timeout(self, fault: Fault) -> None:
        await self._alter(
            fault, f"DATABASE {USER} SET statement_timeout = 3", "RESET statement_timeout"
        )

    async def _connection_limit(self, fault: Fault) -> None:
        await self._alter(fault, f"DATABASE {USER} CONNECTION LIMIT 2", "CONNECTION LIMIT -1")

    async def _alter(self, fault: Fault, change: str, undo: str) -> None:
        """Alter the database, end its sessions so that it takes effect, and undo it later."""
        connection = await self._system.connect()
        try:
            await connection.execute(f"ALTER {change}")
            await connection.execute(END_BACKENDS)
            await asyncio.sleep(fault.seconds)
            await connection.execute(f"ALTER DATABASE {USER} {undo}")
            await connection.execute(END_BACKENDS)
        finally:
            await connection.close()


def _signal(processes: list[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        try:
            process.send_signal(number)
        except psutil.NoSuchProcess:
            continue
