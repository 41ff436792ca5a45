"""The kinds of faults, their seeded schedule, and their injection."""

import asyncio
import random
import signal
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import psutil
from aiohttp import web

from logflume_cli.devstack.home import USER
from tests.support.s3_proxy import Forward, Held, Trouble, error_response
from tests.support.soak.load import Load
from tests.support.soak.system import COMPONENTS, OURS, SERVERS, Ours, System

T = TypeVar("T")

PARTITIONS = ("cut", "stall", "delay", "half-close", "break-off")
FILLS = (
    ("disk-full", "s3"),
    ("statement-timeout", "postgres"),
    ("connection-limit", "postgres"),
)
WRITES = ("PUT", "POST", "DELETE")
FROZEN = ("drain", "drain2", "worker", "worker2")
# The faults of other networks, stores and machines, with their targets: a component, or which
# requests to the store it refuses.
FOREIGN = (
    *(("freeze", name) for name in FROZEN),
    *(("freeze-upload", name) for name in FROZEN if OURS[name] == "worker"),
    *(("refuse", method) for method in ("PUT", "GET", "HEAD", "DELETE", "any")),
    *[("hold-writes", "s3"), ("repeat-writes", "s3"), ("standby", "postgres")] * 2,
)
# The shortest and longest duration, for all faults that are not named 1 to 6 seconds. A worker is
# considered lost after 20 seconds.
SECONDS = {
    "restart": (0, 0),
    "freeze": (8, 25),
    "freeze-upload": (22, 30),
    "refuse": (3, 15),
    "hold-writes": (6, 20),
    "repeat-writes": (6, 20),
    "standby": (3, 10),
}
# Per round, in which each component is killed once.
OTHERS, FOREIGNERS = 1, 3
TERM_SECONDS = 40
# The most seconds for which a frozen process may delay the other one of its kind.
OTHER_SECONDS = 60
# How often a process is frozen until that is in a transaction.
TRIES = 300
WORKS = {
    "drain": "EXISTS (SELECT FROM log_parts p WHERE p.log_id = l.id)",
    "worker": "archive_verified",
}
IN_TRANSACTION = """
SELECT EXISTS (
    SELECT FROM pg_stat_activity WHERE application_name LIKE '%:' || $1::text
        AND xact_start IS NOT NULL AND state IN ('active', 'idle in transaction')
)
"""
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
    others, foreign = _endless(_others(), chance), _endless(FOREIGN, chance)
    while True:
        faults = list(_kills(chance))
        for kinds in (others,) * OTHERS + (foreign,) * FOREIGNERS:
            kind, target = next(kinds)
            seconds = round(chance.uniform(*SECONDS.get(kind, (1, 6))), 1)
            faults.insert(chance.randrange(len(faults) + 1), Fault(kind, (target,), seconds))
        yield from faults


def _endless(items: Sequence[T], chance: random.Random) -> Iterator[T]:
    while True:
        yield from _shuffled(items, chance)


def _kills(chance: random.Random) -> Iterator[Fault]:
    """Kill each component once, some together, for zero or one second."""
    left = _shuffled(COMPONENTS, chance)
    while left:
        count = chance.choice((1, 3, 9, 9))
        yield Fault("kill", tuple(left[:count]), chance.choice((0, 0, 0, 1)))
        left = left[count:]


def short(seed: str) -> list[Fault]:
    """Each component killed once, some together, and some of the other faults."""
    chance = random.Random(f"{seed} faults")
    kills = [("drain", "rabbitmq"), ("worker", "postgres"), ("web", "temporal", "s3")]
    others = [
        (chance.choice(PARTITIONS), chance.choice(list(SERVERS))),
        ("stop", chance.choice(("drain", "drain2", "worker", "web"))),
        ("statement-timeout", "postgres"),
        ("repeat-writes", "s3"),
        ("refuse", "any"),
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

    def __init__(self, system: System, load: Load) -> None:
        self._system = system
        self._load = load
        # Seconds until the other process of a kind did the work of a frozen one.
        self.others: dict[tuple[str, str], list[float]] = defaultdict(list)
        self.in_transaction = 0

    def can(self, fault: Fault) -> bool:
        if fault.kind == "standby":
            return self._system.standby is not None
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

    async def _freeze(self, fault: Fault) -> None:
        """Freeze a process in a transaction, if it has one soon."""
        process = self._system.ours[fault.target]
        connection = await self._system.connect()
        try:
            for _ in range(TRIES):
                process.send(signal.SIGSTOP)
                if await connection.fetchval(IN_TRANSACTION, str(process.pid)):
                    self.in_transaction += 1
                    break
                process.send(signal.SIGCONT)
                await asyncio.sleep(0.01)
        finally:
            await connection.close()
        await self._stay_frozen(process, fault)

    async def _freeze_upload(self, fault: Fault) -> None:
        """Freeze a worker in an upload, which the store executes at the end."""
        process, store = self._system.ours[fault.target], self._system.stores[fault.target]
        held, is_frozen = Held(), asyncio.Event()

        async def freeze(request: web.Request, forward: Forward) -> web.StreamResponse:
            process.send(signal.SIGSTOP)
            store.every = None
            is_frozen.set()
            return await held(request, forward)

        store.every = _only(("PUT",), freeze)
        try:
            async with asyncio.timeout(OTHER_SECONDS):
                await is_frozen.wait()
        finally:
            store.every = None
        await self._stay_frozen(process, fault)
        await held.release()

    async def _stay_frozen(self, process: Ours, fault: Fault) -> None:
        """Check that the other process of the kind works; resume the frozen one at the end."""
        began = time.monotonic()
        process.send(signal.SIGSTOP)
        connection = await self._system.connect()
        try:
            # By then, whatever the frozen process holds is in the way of the other one.
            await asyncio.sleep(2)
            async with asyncio.timeout(OTHER_SECONDS):
                works = WORKS[process.command]
                seconds = await self._load.probe_until(connection, works)
            self.others[fault.kind, f"{fault.target}: other {process.command}"].append(seconds)
            await asyncio.sleep(fault.seconds - (time.monotonic() - began))
        except TimeoutError:
            what = f"the other {process.command} did nothing for {OTHER_SECONDS} s"
            raise TimeoutError(what) from None
        finally:
            process.send(signal.SIGCONT)
            await connection.close()

    async def _refuse(self, fault: Fault) -> None:
        """Let the store refuse requests with this method, as without a permission."""
        methods = (*WRITES, "GET", "HEAD") if fault.target == "any" else (fault.target,)
        self._trouble(_only(methods, error_response(403, "AccessDenied")))
        await asyncio.sleep(fault.seconds)
        self._trouble(None)

    async def _hold_writes(self, fault: Fault, *, done: bool = False) -> None:
        """Execute writes to the store later, in the opposite order, also if executed already."""
        held = Held(done=done)
        self._trouble(_only(WRITES, held))
        await asyncio.sleep(fault.seconds / 2)
        self._trouble(None)
        await asyncio.sleep(fault.seconds / 2)
        await held.release()

    async def _repeat_writes(self, fault: Fault) -> None:
        await self._hold_writes(fault, done=True)

    def _trouble(self, trouble: Trouble | None) -> None:
        for store in self._system.stores.values():
            store.every = trouble

    async def _standby(self, fault: Fault) -> None:
        """Lead the address of Postgres to a standby; sessions there stay open afterwards."""
        proxies = [proxy for way, proxy in self._system.ways.items() if "postgres" in way]
        assert self._system.standby
        for proxy in proxies:
            proxy.lead_to(self._system.standby)
            proxy.turn("cut")
            proxy.turn("flow")
        await asyncio.sleep(fault.seconds)
        for proxy in proxies:
            proxy.lead_to(self._system.home.ports["postgres"])

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


def _only(methods: Sequence[str], trouble: Trouble) -> Trouble:
    async def answer(request: web.Request, forward: Forward) -> web.StreamResponse:
        if request.method in methods:
            return await trouble(request, forward)
        return (await forward()).again(request)

    return answer
