"""Postgres, run as the user postgres if we are root, in a folder that only root may enter."""

import asyncio
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import asyncpg
import psutil

from db.connect import check_schema
from db.migrate import deploy
from logflume.errors import ComponentError
from logflume_cli.devstack.components import Component, bare_env
from logflume_cli.devstack.files import write_private
from logflume_cli.devstack.home import HOST, PROCESSES, USER, Home
from logflume_cli.devstack.processes import Running, find_program

INSTALL = "install PostgreSQL and pg_partman"
SERVER_USER = "postgres"
CREATE_DATABASE = "CREATE DATABASE logflume"
# Postgres quotes the password: a utility statement takes no parameters.
CREATE_USER = """
SELECT format('CREATE ROLE %I LOGIN PASSWORD %L IN ROLE %I', $1::text, $2::text, $3::text)
"""
OPTIONS = {
    "shared_buffers": "512MB",
    "max_wal_size": "4GB",
    "max_connections": "200",
    "wal_compression": "on",
    "timezone": "UTC",
    "log_timezone": "UTC",
}


def postgres(home: Home) -> Component:
    """The database server; `finish` creates the database, its schema and the users."""
    data = home.folder("postgres") / "data"

    def argv() -> list[str]:
        options = {"port": str(home.ports["postgres"]), "listen_addresses": HOST, **OPTIONS}
        settings = [part for item in options.items() for part in ("-c", "=".join(item))]
        return [*_as_server_user(), _program("postgres"), "-D", str(data), "-k", "", *settings]

    async def prepare() -> None:
        if not data.exists():
            await asyncio.to_thread(_initialise, data, home.secrets["password"])
        _end_orphans(data)

    async def ready(_: Running) -> bool:
        await (await asyncpg.connect(home.database_url("postgres"), timeout=5)).close()
        return True

    async def finish() -> None:
        await _create_database(home)
        connection = await asyncpg.connect(home.database_url(USER), timeout=5)
        try:
            await _deploy_schema(connection, home)
            await _create_users(connection, home)
        finally:
            await connection.close()

    return Component(
        name="postgres",
        argv=argv,
        env=bare_env(LC_ALL="C.UTF-8"),
        ready=ready,
        ports=[home.ports["postgres"]],
        prepare=prepare,
        finish=finish,
        # SIGTERM would wait for every client to leave.
        stop_signal=signal.SIGINT,
    )


def _program(name: str) -> str:
    folders = sorted(
        Path("/usr/lib/postgresql").glob("*/bin"),
        key=lambda folder: int(re.sub(r"\D", "", folder.parent.name) or 0),
        reverse=True,
    )
    return find_program(name, folders, INSTALL)


def _as_server_user() -> list[str]:
    if os.geteuid() != 0:
        return []
    return [
        find_program("setpriv", [], "apt-get install util-linux"),
        f"--reuid={SERVER_USER}",
        f"--regid={SERVER_USER}",
        "--init-groups",
        # Postgres refuses to run as root, but only root may be able to enter the parent folder.
        "--inh-caps=+dac_override",
        "--ambient-caps=+dac_override",
        "--bounding-set=-all,+dac_override",
    ]


def _initialise(data: Path, password: str) -> None:
    # Created aside and renamed: an interrupted initdb must not look like a cluster.
    fresh, pwfile = data.with_name("data.new"), data.with_name("password")
    data.parent.mkdir(exist_ok=True)
    if fresh.exists():
        shutil.rmtree(fresh)
    fresh.mkdir(mode=0o700)
    write_private(pwfile, password)
    command = [*_as_server_user(), _program("initdb"), "-D", str(fresh), "-U", USER]
    command += ["--auth=scram-sha-256", f"--pwfile={pwfile}", "--encoding=UTF8", "--locale=C.UTF-8"]
    try:
        if os.geteuid() == 0:
            for path in (data.parent, fresh, pwfile):
                shutil.chown(path, SERVER_USER, SERVER_USER)
        done = subprocess.run(  # noqa: S603
            command, capture_output=True, text=True, env=bare_env(), check=False
        )
    except LookupError as error:
        raise ComponentError(f"user {SERVER_USER} does not exist: run {INSTALL}") from error
    finally:
        pwfile.unlink()
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or ["no output"]
        raise ComponentError(f"postgres: initdb failed: {lines[-1]}")
    fresh.rename(data)


def _end_orphans(data: Path) -> None:
    """Kill backends of a killed server: a new server does not start while one is alive."""
    orphans = [
        process
        for process in psutil.process_iter(["name", "cwd"])
        if process.info["name"] == "postgres" and process.info["cwd"] == str(data.resolve())
    ]
    for process in orphans:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(orphans, timeout=5)


async def _create_database(home: Home) -> None:
    connection = await asyncpg.connect(home.database_url("postgres"), timeout=5)
    try:
        if not await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", USER):
            await connection.execute(CREATE_DATABASE)
    finally:
        await connection.close()


async def _deploy_schema(connection: asyncpg.Connection, home: Home) -> None:
    """Run sqitch, which takes seconds, unless the schema is current."""
    try:
        await check_schema(connection)
    except ComponentError:
        await asyncio.to_thread(deploy, home.database_url(USER))


async def _create_users(connection: asyncpg.Connection, home: Home) -> None:
    """Create a user for each of our processes, a member only of the process's role."""
    for process in PROCESSES:
        user = f"app_{process}"
        secret = home.secrets[f"{process}_password"]
        if not await connection.fetchval("SELECT to_regrole($1)", user):
            role = f"logflume_{process}"
            await connection.execute(await connection.fetchval(CREATE_USER, user, secret, role))
