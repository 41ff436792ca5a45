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
        output = " ".join((done.stderr or done.stdout).split()) or "no output"
        raise ComponentError(f"sqitch {command} failed: {output[:500]}")
    return done.stdout
