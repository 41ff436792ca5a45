"""The system under test: the stack's servers, our processes, and a proxy on each connection."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import asyncpg
import httpx
import psutil
from pydantic import SecretStr
from yarl import URL

from logflume.errors import ComponentError
from logflume.settings import load_settings
from logflume_cli.devstack.home import HOST, USER, Home
from logflume_cli.devstack.stack import LocalStack
from logflume_cli.schedules import apply_schedules
from tests.support import s3_proxy
from tests.support.soak.proxy import Proxy
from tests.support.stacks import discard
from tests.support.standby import free_port, standby_of

LOGFLUME = str(Path(sys.executable).parent / "logflume")
# Server: the name of its port in the stack.
SERVERS = {"rabbitmq": "amqp", "postgres": "postgres", "temporal": "temporal", "s3": "s3"}
# Our processes and their commands: one of two is to work while the other one is frozen.
OURS = {"drain": "drain", "drain2": "drain", "worker": "worker", "worker2": "worker", "web": "web"}
COMPONENTS = (*OURS, *SERVERS)
# Who connects to whom; `outside` are runners and readers.
NEEDS = {
    "drain": ("rabbitmq", "postgres", "temporal"),
    "worker": ("postgres", "temporal", "s3"),
    "web": ("rabbitmq", "postgres", "temporal", "s3"),
}
WAYS = {name: NEEDS[command] for name, command in OURS.items()} | {"outside": ("rabbitmq", "web")}
# The processes with a wrong clock, and by how many seconds it is wrong. faketime costs much CPU.
CLOCKS = {"drain2": 40}
FAKETIME = "/usr/lib/*/faketime/libfaketime.so.1"
TIMES = {
    "database": {
        "idle_transaction_seconds": 5,
        "transfer_idle_seconds": 10,
        "unanswered_seconds": 10,
    },
    "lifecycle": {
        "settle_seconds": 1,
        "gap_seconds": 3,
        "purge_seconds": 3,
        "archive_backoff_seconds": 1,
    },
    "sweep": {"every_seconds": 10, "after_seconds": 20},
    "drain": {"signal_seconds": 1},
    "s3": {"slice_bytes": 5 * 1024 * 1024, "longest_request_seconds": 40},
}
READY_SECONDS = 120
# The size of the S3 store's file system.
STORE_BYTES = 3 * 1024**3


class Ours:
    """One of our processes, restarted whenever it exits."""

    def __init__(self, command: str, env: dict[str, str], log: Path) -> None:
        self.command = command
        self.ends = Counter[str]()  # last line of each unrequested exit after startup
        self.may_run = asyncio.Event()
        self.may_run.set()
        self._env, self._log = env, log
        self._is_asked, self._begins_at = False, 0
        self._process: asyncio.subprocess.Process | None = None
        self._keeping = asyncio.create_task(self._keep())

    async def _keep(self) -> None:
        while True:
            await self.may_run.wait()
            with self._log.open("ab") as output:
                self._is_asked, self._begins_at = False, output.tell()
                self._process = await asyncio.create_subprocess_exec(
                    *(LOGFLUME, self.command),
                    env=self._env,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                )
            code = await self._process.wait()
            said = self._log.read_bytes()[self._begins_at :].decode(errors="replace")
            # Exiting during startup is right while a dependency is down.
            if not self._is_asked and f"{self.command}_started" in said:
                self.ends[f"exit code {code}: {said.strip().splitlines()[-1][:160]}"] += 1
            await asyncio.sleep(0.2)

    def send(self, number: signal.Signals) -> None:
        if self._process and self._process.returncode is None:
            self._is_asked = self._is_asked or number in (signal.SIGKILL, signal.SIGTERM)
            self._process.send_signal(number)

    @property
    def pid(self) -> int:
        return self._process.pid if self._process else 0

    async def ended(self) -> int:
        return await self._process.wait() if self._process else 0

    async def close(self) -> None:
        self._keeping.cancel()
        if self._process and self._process.returncode is None:
            self.send(signal.SIGCONT)
            self.send(signal.SIGTERM)
            try:
                await asyncio.wait_for(self._process.wait(), 40)
            except TimeoutError:
                self._process.kill()
                await self._process.wait()


class System:
    """All servers and processes, with their data in one folder.

    `small`: S3 has no separate file system to fill, Postgres has no standby, there is one worker,
    no clock is wrong, and times are short.
    """

    def __init__(self, folder: Path, *, small: bool = False) -> None:
        idle = {"idle_timeout_seconds": 5 if small else 20}
        times = TIMES | {"lifecycle": TIMES["lifecycle"] | idle}
        if small:
            times["s3"] = TIMES["s3"] | {"longest_request_seconds": 5}
        self.stack = LocalStack(folder, times)
        self.home: Home = self.stack.home
        self.settings = load_settings(stack={"data_dir": folder})
        self.ours: dict[str, Ours] = {}
        self.ways: dict[tuple[str, str], Proxy] = {}
        self.ports: dict[tuple[str, str], int] = {}
        self.stores: dict[str, s3_proxy.Proxy] = {}
        self.standby: int | None = None
        self.health = {name: self.home.ports.get(name) or free_port() for name in OURS}
        libraries = sorted(Path("/").glob(FAKETIME[1:]))
        self.faketime = str(libraries[0]) if libraries and not small else None
        self._resources = AsyncExitStack()
        self._small = small
        self.store_is_small = False

    async def start(self) -> None:
        if not self._small:
            self._mount()
        await self.stack.up(SERVERS)
        for who, servers in WAYS.items():
            for server in servers:
                to = self.home.ports[SERVERS.get(server, server)]
                if server == "s3":
                    to = await self._start_store(who)
                proxy = self.ways[who, server] = Proxy(to)
                self.ports[who, server] = await proxy.start()
        if not self._small:
            self.standby = await self._resources.enter_async_context(standby_of(self.home))
        for name, command in OURS.items():
            if not self._small or name != "worker2":
                self.ours[name] = Ours(command, self._env(name, command), self.home.log(name))
        await self.until_ready()
        await apply_schedules(self.settings)

    async def close(self) -> None:
        await asyncio.gather(*(one.close() for one in self.ours.values()))
        for proxy in self.ways.values():
            proxy.close()
        await self._resources.aclose()
        await discard(self.stack)
        if self.store_is_small:
            await asyncio.to_thread(subprocess.run, ["umount", str(self._store)], check=True)

    async def _start_store(self, who: str) -> int:
        """Put a proxy for requests before the store; returns its port."""
        proxy = s3_proxy.s3_proxy(self.home.s3_endpoint)
        self.stores[who] = await self._resources.enter_async_context(proxy)
        return URL(self.stores[who].url).port or 0

    @property
    def _store(self) -> Path:
        return self.home.folder("s3") / "data"

    def _mount(self) -> None:
        """Mount a small file system for the S3 store, if permitted."""
        self._store.mkdir(parents=True, exist_ok=True)
        mount = ["mount", "-t", "tmpfs", "-o", f"size={STORE_BYTES}", "tmpfs", str(self._store)]
        self.store_is_small = (
            subprocess.run(mount, capture_output=True, check=False).returncode == 0
        )

    def _env(self, name: str, command: str) -> dict[str, str]:
        def way(url: str, server: str) -> str:
            port = self.home.ports[SERVERS[server]]
            return url.replace(f"{HOST}:{port}", f"{HOST}:{self.ports[name, server]}")

        given = {
            "AMQP__URL": ("rabbitmq", self.home.amqp_url),
            "DATABASE__URL": ("postgres", self.home.database_url(USER, command)),
            "TEMPORAL__ADDRESS": ("temporal", self.home.temporal_address),
            "S3__ENDPOINT": ("s3", self.home.s3_endpoint),
        }
        env = {
            f"LOGFLUME_{key}": way(url, server)
            for key, (server, url) in given.items()
            if server in WAYS[name]
        }
        env["LOGFLUME_TELEMETRY__LOG_FORMAT"] = "json"
        if command != "web":
            env["LOGFLUME_TELEMETRY__PORT"] = str(self.health[name])
        if self.faketime and name in CLOCKS:
            env |= {"LD_PRELOAD": self.faketime, "FAKETIME": f"{CLOCKS[name]:+}"}
            env["FAKETIME_DONT_FAKE_MONOTONIC"] = "1"
        return {**os.environ, "LOGFLUME_STACK__DATA_DIR": str(self.home.data_dir), **env}

    @property
    def amqp_url(self) -> str:
        """The URL to which runners publish."""
        port = self.home.ports["amqp"]
        return self.home.amqp_url.replace(f":{port}/", f":{self.ports['outside', 'rabbitmq']}/")

    def web(self, *, direct: bool) -> httpx.AsyncClient:
        """A web client; `direct` for writes, which must not arrive after a timeout."""
        token = self.settings.web.auth_token
        assert isinstance(token, SecretStr)
        port = self.home.ports["web"] if direct else self.ports["outside", "web"]
        return httpx.AsyncClient(
            base_url=f"http://{HOST}:{port}",
            headers={"Authorization": f"token {token.get_secret_value()}"},
            timeout=120 if direct else 20,
            trust_env=False,
        )

    async def connect(self) -> asyncpg.Connection:
        """A database connection that no fault targets."""
        return await asyncpg.connect(self.home.database_url(USER), timeout=10)

    async def until_ready(self) -> None:
        """Wait until each of our processes is ready.

        Raises:
            TimeoutError: one is not ready after two minutes.
        """
        async with httpx.AsyncClient(timeout=10, trust_env=False) as client:
            for name in self.ours:
                deadline = time.monotonic() + READY_SECONDS
                said = "nothing"
                while said != "ok":
                    if time.monotonic() > deadline:
                        raise TimeoutError(f"{name} is not ready: {said}")
                    try:
                        url = f"http://{HOST}:{self.health[name]}/health/ready"
                        said = await self._ask(client, url)
                    except (httpx.HTTPError, json.JSONDecodeError) as error:
                        said = str(error) or type(error).__name__
                    if said != "ok":
                        await asyncio.sleep(0.2)

    async def _ask(self, client: httpx.AsyncClient, url: str) -> str:
        body = (await client.get(url)).json()
        return "ok" if body["status"] == "ok" else str(body["dependencies"])

    def processes(self, server: str) -> list[psutil.Process]:
        """A server's process and its children."""
        pid = next(item.pid for item in self.stack.status() if item.name == server)
        if pid is None:
            return []
        top = psutil.Process(pid)
        return [top, *top.children(recursive=True)]

    async def up(self, servers: list[str]) -> None:
        """Start servers, with retries: a dying process may still hold a port."""
        for tries in range(3):
            try:
                await self.stack.up(servers)
            except ComponentError:
                if tries == 2:
                    raise
                await asyncio.sleep(1)
            else:
                return

    def fill_store(self) -> None:
        """Fill the S3 store's file system completely."""
        with (self._store / "ballast").open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(1024 * 1024))

    def empty_store(self) -> None:
        (self._store / "ballast").unlink(missing_ok=True)
