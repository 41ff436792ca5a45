"""Soketi, a server with Pusher's protocol, for tests and local use.

Not for production: it uses an unofficial build of its web-socket library.
"""

from pathlib import Path

from logflume.errors import ComponentError
from logflume_cli.devstack.components import Component, answers, bare_env
from logflume_cli.devstack.files import write_private
from logflume_cli.devstack.home import HOST, PUSHER_APP_ID, Home
from logflume_cli.devstack.processes import find_program

# Installed by `bin/setup --pusher`.
PROGRAM = Path(__file__).resolve().parents[2] / ".npm/node_modules/@soketi/soketi/bin/server.js"


def pusher(home: Home) -> Component:
    """The server, with webhooks to the stack's web."""
    folder, port = home.folder("pusher"), home.ports["pusher"]
    config = folder / "soketi.json"

    def argv() -> list[str]:
        if not PROGRAM.exists():
            raise ComponentError("pusher is not installed: run bin/setup --pusher")
        return [find_program("node", [], "apt install nodejs"), str(PROGRAM), "start",
                f"--config={config}"]  # fmt: skip

    async def prepare() -> None:
        folder.mkdir(exist_ok=True)
        write_private(config, _config(home))

    return Component(
        name="pusher",
        argv=argv,
        env=bare_env(HOME=str(folder)),
        ready=lambda _: answers(f"http://{HOST}:{port}/"),
        ports=[port, home.ports["pusher_metrics"]],
        prepare=prepare,
        stop_seconds=10,
    )


def _config(home: Home) -> dict[str, object]:
    app = {
        "id": PUSHER_APP_ID,
        "key": home.secrets["pusher_key"],
        "secret": home.secrets["pusher_secret"],
        "maxConnections": -1,
        "maxBackendEventsPerSecond": -1,
        "maxClientEventsPerSecond": -1,
        "maxReadRequestsPerSecond": -1,
        "webhooks": [
            {
                "url": f"http://{HOST}:{home.ports['web']}/pusher/existence",
                "event_types": ["channel_occupied", "channel_vacated"],
            }
        ],
    }
    return {
        "host": HOST,
        "port": home.ports["pusher"],
        "appManager.array.apps": [app],
        # Pusher's own limit; soketi's default is ten times higher.
        "eventLimits.maxPayloadInKb": 10,
        "shutdownGracePeriod": 500,
        # Without metrics it does not exit on SIGTERM.
        "metrics.enabled": True,
        "metrics.host": HOST,
        "metrics.port": home.ports["pusher_metrics"],
    }
