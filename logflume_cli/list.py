"""`logflume list`: lists recent logs over the HTTP API."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice, takewhile
from typing import Any

import click

from logflume_cli.duration import Duration
from logflume_cli.output import json_option, print_json
from logflume_cli.terminal import echo
from logflume_cli.web_client import WebClient

# Those that Temporal records; `logflume show` knows finer ones.
PHASES = ("receiving", "archiving", "verified", "stuck", "done")
PAGE = 200


@click.command("list")
@click.option("--phase", type=click.Choice(PHASES), help="Only logs in this phase.")
@click.option("--since", type=Duration(), help="Only logs that began within this time, e.g. 2h.")
@click.option(
    "-L",
    "--limit",
    type=click.IntRange(1),
    default=20,
    show_default=True,
    help="The most logs to list.",
)
@json_option
def list_(phase: str | None, since: timedelta | None, limit: int, *, as_json: bool) -> None:
    """List recent logs, newest first: job id, phase, begin, parts and bytes.

    Needs LOGFLUME_WEB__URL and LOGFLUME_WEB__AUTH_TOKEN. With --phase at most 200 are listed.
    """
    oldest = datetime.now(UTC) - since if since else datetime.min.replace(tzinfo=UTC)

    def is_recent(log: dict[str, Any]) -> bool:
        return datetime.fromisoformat(log["created_at"]) >= oldest

    logs = _logs(WebClient.load(), phase, min(limit, PAGE))
    # A phase's logs are in the order of their workflows.
    recent = filter(is_recent, logs) if phase else takewhile(is_recent, logs)
    chosen = [*islice(recent, limit)]
    if as_json:
        print_json(chosen)
        return
    echo(f"{'JOB':<20} {'PHASE':<11} {'BEGAN':<20} {'PARTS':>8} {'BYTES':>12}")
    for log in chosen:
        began = log["created_at"][:19] + "Z"
        numbers = f"{_number(log['parts']):>8} {_number(log['bytes']):>12}"
        echo(f"{log['job_id']:<20} {log['phase']:<11} {began:<20} {numbers}")


def _logs(web: WebClient, phase: str | None, page: int) -> Iterator[dict[str, Any]]:
    before = None
    while True:
        body = web.json("/logs", phase=phase, before=before, limit=PAGE if phase else page)
        yield from body["logs"]
        before = body["next"]
        if before is None:
            return


def _number(value: int | None) -> str:
    return "-" if value is None else str(value)
