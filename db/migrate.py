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
        ComponentError: sqitch is missing, or a change failed and was reverted by it.
    """
    run("deploy", url)


def run(command: str, url: str, *arguments: str) -> str:
    """Run one sqitch command against the database at `url` and return what it printed.

    The password goes by environment, so that it stands in no process list and no error text.

    Raises:
        ComponentError: sqitch is missing or ended with an error; what it said is in the text.
    """
    if shutil.which("sqitch") is None:
        raise ComponentError("sqitch is not installed: run bin/setup, or apt-get install sqitch")
    parts = urlsplit(url)
    host = f"{parts.username or ''}@{parts.hostname or 'localhost'}:{parts.port or 5432}"
    target = f"db:pg://{host}{parts.path}" + (f"?{parts.query}" if parts.query else "")
    environment = {
        **os.environ,
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
        said = " ".join((done.stderr or done.stdout).split()) or "no output"
        raise ComponentError(f"sqitch {command} failed: {said[:500]}")
    return done.stdout
