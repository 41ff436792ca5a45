"""The local stack: starts, stops and watches its components."""

import asyncio
import contextlib
import fcntl
import time
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from logflume.errors import ComponentError
from logflume_cli.devstack.components import DEFAULT, NAMES, NOT_READY, OPTIONAL, Component
from logflume_cli.devstack.home import Home, open_home, set_pusher
from logflume_cli.devstack.ports import owns, require_free
from logflume_cli.devstack.postgres import postgres
from logflume_cli.devstack.processes import Register, Running, is_alive, last_line, spawn, stop
from logflume_cli.devstack.pusher import pusher
from logflume_cli.devstack.rabbitmq import epmd, rabbitmq
from logflume_cli.devstack.s3 import s3
from logflume_cli.devstack.services import drain, web, worker
from logflume_cli.devstack.tasks import together
from logflume_cli.devstack.temporal import temporal

READY_SECONDS = 60
POLL_SECONDS = 0.1
WATCH_SECONDS = 0.5
MAKERS = (epmd, rabbitmq, postgres, temporal, s3, pusher, drain, worker, web)


@dataclass(frozen=True)
class Status:
    """The state of one component."""

    name: str
    state: str
    """`running`, `stopped`, or `died`: it ended without being stopped."""
    pid: int | None
    port: int | None
    """Its main port."""
    log: Path


class LocalStack:
    """A stack of real components with all its data, logs, keys and pids in one folder."""

    def __init__(self, data_dir: Path, overrides: dict[str, Any] | None = None) -> None:
        """Use the stack in `data_dir`; creates its files if they are missing.

        `overrides` are nested settings groups for the stack's settings file.

        Raises:
            ComponentError: no ports are free.
            SettingsError: a file in the folder is unreadable.
        """
        self.home: Home = open_home(data_dir.absolute(), overrides or {})
        self._components: dict[str, Component] = {
            item.name: item for item in (make(self.home) for make in MAKERS)
        }
        self._register = Register(self.home.data_dir / "state.json")

    async def up(
        self,
        names: Iterable[str] | None = None,
        on_ready: Callable[[str, float], None] | None = None,
    ) -> list[str]:
        """Start `names` (None: all but the optional ones) and their dependencies, if not running.

        `on_ready` gets each component and the seconds it took. Returns the names of the started
        components. If one fails, the started ones are stopped again.

        Raises:
            ComponentError: a component is not installed, its port is taken, it ended, or it was
                not ready in time.
        """
        wanted = self._with_needs(DEFAULT if names is None else names)
        async with self._lock():
            self._set_pusher(wanted)
            started: list[str] = []
            try:
                await self._start_all(wanted, started, on_ready or (lambda *_: None))
            except BaseException:
                await self._stop_all(started)
                self._set_pusher([])
                raise
        return [name for name in NAMES if name in started]

    async def down(self, names: Iterable[str] | None = None) -> None:
        """Stop `names` (None: all), each before its dependencies."""
        async with self._lock():
            await self._stop_all(NAMES if names is None else names)

    def status(self) -> list[Status]:
        """The components in start order, without optional ones that were not started."""
        return [
            self._status(self._components[name])
            for name in NAMES
            if name not in OPTIONAL or self._register.get(name)
        ]

    async def watch(self, names: Iterable[str], on_death: Callable[[Status], None]) -> None:
        """Call `on_death` for each of `names` that dies; returns when all are stopped."""
        wanted, reported = set(names), set[str]()
        while watched := [
            item for item in self.status() if item.name in wanted and item.state != "stopped"
        ]:
            for item in watched:
                if item.state == "running":
                    reported.discard(item.name)
                elif item.name not in reported:
                    reported.add(item.name)
                    on_death(item)
            await asyncio.sleep(WATCH_SECONDS)

    def _status(self, component: Component) -> Status:
        process = self._register.get(component.name)
        alive = is_alive(process)
        state = "running" if alive else "died" if process else "stopped"
        return Status(
            name=component.name,
            state=state,
            pid=process.pid if process and alive else None,
            port=component.ports[0] if component.ports else None,
            log=self.home.log(component.name),
        )

    def _with_needs(self, names: Iterable[str]) -> list[str]:
        wanted = set(names)
        for name in reversed(NAMES):
            if name in wanted:
                wanted.update(self._components[name].needs)
        return [name for name in NAMES if name in wanted]

    async def _start_all(
        self, wanted: list[str], started: list[str], on_ready: Callable[[str, float], None]
    ) -> None:
        ready = {name: asyncio.Event() for name in wanted}

        async def start(component: Component) -> None:
            for name in component.needs:
                await ready[name].wait()
            began = time.monotonic()
            await self._start(component, started)
            ready[component.name].set()
            on_ready(component.name, time.monotonic() - began)

        await together(*(start(self._components[name]) for name in wanted))

    async def _start(self, component: Component, started: list[str]) -> None:
        name, process = component.name, self._register.get(component.name)
        if process is None or not is_alive(process):
            argv = component.argv()
            await component.prepare()
            require_free(name, component.ports, self.home.ports_file)
            process = spawn(argv, component.env, self.home.log(name))
            started.append(name)
            self._register.set(name, process)
        await self._wait_ready(component, process)
        await component.finish()

    async def _wait_ready(self, component: Component, process: Running) -> None:
        log, deadline = self.home.log(component.name), time.monotonic() + READY_SECONDS
        while not await self._is_ready(component, process):
            if not is_alive(process):
                raise ComponentError(f"{component.name} ended: {last_line(log)} (log: {log})")
            if time.monotonic() > deadline:
                raise ComponentError(
                    f"{component.name} is not ready after {READY_SECONDS} s: "
                    f"{last_line(log)} (log: {log})"
                )
            await asyncio.sleep(POLL_SECONDS)

    async def _is_ready(self, component: Component, process: Running) -> bool:
        try:
            if not await component.ready(process):
                return False
        except NOT_READY:
            return False
        return owns(component.name, process.pid, component.ports, self.home.ports_file)

    async def _stop_all(self, names: Iterable[str]) -> None:
        ended = {name: asyncio.Event() for name in names}

        async def end(component: Component) -> None:
            for name, event in ended.items():
                if component.name in self._components[name].needs:
                    await event.wait()
            await self._stop(component)
            ended[component.name].set()

        await together(*(end(self._components[name]) for name in ended))

    async def _stop(self, component: Component) -> None:
        process = self._register.get(component.name)
        if process is not None:
            await stop(process, component.stop_signal, component.stop_seconds)
            self._register.set(component.name, None)

    def _set_pusher(self, wanted: list[str]) -> None:
        runs = is_alive(self._register.get("pusher"))
        set_pusher(self.home, runs=runs or "pusher" in wanted)

    @contextlib.asynccontextmanager
    async def _lock(self) -> AsyncIterator[None]:
        """Allow only one command to start or stop components at a time."""
        with (self.home.data_dir / "lock").open("w") as file:
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    await asyncio.sleep(POLL_SECONDS)
            yield
