"""RabbitMQ, with its own Erlang port mapper, which would otherwise run as an unknown process."""

from pathlib import Path

import aio_pika

from logflume_cli.devstack.components import Component, accepts_connections, bare_env
from logflume_cli.devstack.files import write_private
from logflume_cli.devstack.home import HOST, USER, Home
from logflume_cli.devstack.processes import Running, find_program

INSTALL = "apt-get install rabbitmq-server"
# Not the wrapper in sbin, which changes the user.
SCRIPTS = Path("/usr/lib/rabbitmq/bin")


def epmd(home: Home) -> Component:
    """The Erlang port mapper daemon."""
    port = home.ports["epmd"]

    return Component(
        name="epmd",
        argv=lambda: [find_program("epmd", [], INSTALL), "-address", HOST, "-port", str(port)],
        env=bare_env(),
        ready=lambda _: accepts_connections(HOST, port),
        ports=[port],
        stop_seconds=5,
    )


def rabbitmq(home: Home) -> Component:
    """The broker, with management and sharding."""
    folder = home.folder("rabbitmq")

    async def prepare() -> None:
        folder.mkdir(exist_ok=True)
        write_private(folder / "rabbitmq.conf", _config(home))
        write_private(folder / "enabled_plugins", "[rabbitmq_management,rabbitmq_sharding].\n")
        write_private(folder / ".erlang.cookie", home.secrets["erlang_cookie"], mode=0o400)

    async def ready(_: Running) -> bool:
        if not await accepts_connections(HOST, home.ports["amqp"]):
            return False  # aio-pika would log every attempt
        await (await aio_pika.connect(home.amqp_url, timeout=5)).close()
        return True

    names = ("amqp", "rabbitmq_management", "rabbitmq_dist")
    return Component(
        name="rabbitmq",
        argv=lambda: [find_program("rabbitmq-server", [SCRIPTS], INSTALL)],
        env=_env(home, folder),
        ready=ready,
        ports=[home.ports[name] for name in names],
        needs=("epmd",),
        prepare=prepare,
    )


def _config(home: Home) -> str:
    return f"""\
listeners.tcp.1 = {HOST}:{home.ports["amqp"]}
management.tcp.ip = {HOST}
management.tcp.port = {home.ports["rabbitmq_management"]}
default_user = {USER}
default_pass = {home.secrets["password"]}
vm_memory_high_watermark.relative = 0.4
disk_free_limit.absolute = 50MB
log.console = true
log.console.level = info
log.file = false
"""


def _env(home: Home, folder: Path) -> dict[str, str]:
    return bare_env(
        HOME=str(folder),
        RABBITMQ_NODENAME=f"{USER}@localhost",
        RABBITMQ_DIST_PORT=str(home.ports["rabbitmq_dist"]),
        RABBITMQ_MNESIA_BASE=str(folder / "mnesia"),
        RABBITMQ_LOG_BASE=str(folder / "log"),
        RABBITMQ_PID_FILE=str(folder / "pid"),
        RABBITMQ_GENERATED_CONFIG_DIR=str(folder / "generated"),
        RABBITMQ_CONFIG_FILE=str(folder / "rabbitmq.conf"),
        RABBITMQ_ENABLED_PLUGINS_FILE=str(folder / "enabled_plugins"),
        # These files do not exist; they hide the system's configuration.
        RABBITMQ_CONF_ENV_FILE=str(folder / "rabbitmq-env.conf"),
        RABBITMQ_ADVANCED_CONFIG_FILE=str(folder / "advanced.config"),
        RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="-kernel inet_dist_use_interface {127,0,0,1}",
        # Makes the script exec Erlang, so the recorded pid is the broker's.
        RUNNING_UNDER_SYSTEMD="true",
        ERL_EPMD_PORT=str(home.ports["epmd"]),
        ERL_EPMD_ADDRESS=HOST,
        ERL_CRASH_DUMP=str(folder / "erl_crash.dump"),
    )
