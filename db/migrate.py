"""Runs sqitch, which owns the schema, against the configured database."""

import os
import shutil
import subprocess
from pathlib import Path
from urllib.parse import unquote, urlsplit

from logflume.errors import ComponentError

PROJECT = Path(__file__).resolve().parent


def deploy(url: str) -> None:
    """Bring the schema up to date, verifying each change.

    Raises:
        ComponentError: sqitch is missing, or a change failed and was reverted.
    """
    run("deploy", url)


def run(command: str, url: str, *arguments: str) -> str:
    """Run a sqitch command against the database at `url` and return its output.

    The password is passed by environment, to keep it out of process lists and error texts.

    Raises:
        ComponentError: sqitch is missing or failed; its output is in the text.
    """
    if shutil.which("sqitch") is None:
        raise ComponentError("sqitch is not installed: run bin/setup, or apt-get install sqitch")
    parts = urlsplit(url)
    hosts = [urlsplit(f"//{host}") for host in parts.netloc.rpartition("@")[2].split(",")]
    # sqitch accepts one host; psql reads several from the environment.
    names = [host.hostname or "localhost" for host in hosts]
    ports = [str(host.port or 5432) for host in hosts]
    only = f"{names[0]}:{ports[0]}" if len(hosts) == 1 else ""
    target = f"db:pg://{parts.username or ''}@{only}{parts.path}"
    target += f"?{parts.query}" if parts.query else ""
    several = {"PGHOST": ",".join(names), "PGPORT": ",".join(ports)} if not only else {}
    environment = {
        **os.environ,
        **several,
        "PGPASSWORD": unquote(parts.password or "") or os.environ.get("PGPASSWORD", ""),
        "PGOPTIONS": "-c client_min_messages=warning",
        "SQITCH_FULLNAME": "logflume",
        "SQITCH_EMAIL": "logflume@localhost",
    }
    done = subprocess.run(  # noqa: S603
        ["sqitch", command, *arguments, target],  # noqa: S607
        cwd=PROJECT,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        output = " ".join((done.stderr or done.stdout).split()) or "no output"
        raise ComponentError(f"sqitch {command} failed: {output[:500]}")
    return done.stdout
