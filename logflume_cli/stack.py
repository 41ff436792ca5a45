"""`logflume stack`: the local stack of real components, for development and tests."""

import asyncio
import json
import sys
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from logflume.errors import ComponentError
from logflume.settings import Settings, load_settings, stack_file
from logflume_cli.devstack.components import DEFAULT, NAMES
from logflume_cli.devstack.stack import LocalStack, Status
from logflume_cli.devstack.tasks import run_until_signal

components = click.argument(
    "names", metavar="[COMPONENT]...", nargs=-1, type=click.Choice(NAMES), required=False
)
STYLES = {"running": "green", "stopped": "dim", "died": "bold red"}
console = Console()


@click.group()
def stack() -> None:
    """Start, stop and inspect the local development stack.

    The stack runs everything on this machine: RabbitMQ (with epmd), Postgres, Temporal, an S3
    store, with --pusher also a Pusher server, and logflume's drain, worker and web. Data, logs and
    secrets are in one folder, `.stack` in a checkout (LOGFLUME_STACK__DATA_DIR); delete it while
    the stack is down to start from scratch. Other commands use the stack's settings automatically.
    """


@stack.command()
@components
@click.option("--detach", is_flag=True, help="Return once all is ready and leave it running.")
@click.option(
    "--pusher",
    is_flag=True,
    help="Also run a Pusher server and send live parts to it. Restart a running drain and web to "
    "use it.",
)
def up(names: tuple[str, ...], *, detach: bool, pusher: bool) -> None:
    """Start components (default: all except pusher) and their dependencies.

    Components: epmd, rabbitmq, postgres, temporal, s3, pusher, drain, worker, web.
    Runs until Ctrl-C and then stops what it started, unless --detach is given.
    """
    local = LocalStack(load_settings().stack.folder)
    wanted = (names or DEFAULT) + (("pusher",) if pusher else ())
    sys.exit(run_until_signal(_up(local, wanted, detach=detach)))


@stack.command()
@components
def down(names: tuple[str, ...]) -> None:
    """Stop components (default: all) without deleting their data."""
    settings = load_settings()
    if not _was_started(settings):
        click.echo(f"nothing to stop: no local stack in {settings.stack.folder}")
        return
    asyncio.run(LocalStack(settings.stack.folder).down(names or NAMES))


@stack.command()
@click.option("--json", "as_json", is_flag=True, help="Print addresses, secrets and pids as JSON.")
def status(*, as_json: bool) -> None:
    """Show the state, port and log file of each component."""
    settings = load_settings()
    if not _was_started(settings):
        raise ComponentError(
            f"there is no local stack in {settings.stack.folder}: run `logflume stack up`"
        )
    local = LocalStack(settings.stack.folder)
    if as_json:
        click.echo(json.dumps(_description(load_settings(), local), indent=2))
    else:
        statuses = local.status()
        console.print(_table(statuses))
        console.print(f"logs in {statuses[0].log.parent}", soft_wrap=True, highlight=False)


def _was_started(settings: Settings) -> bool:
    return stack_file(settings.stack.folder).exists()


async def _up(local: LocalStack, names: tuple[str, ...], *, detach: bool) -> int:
    started = await local.up(names, report_ready)
    settings = load_settings()
    console.print(f"web          {settings.web.url}", highlight=False)
    console.print(f"API docs     {settings.web.url}/schema", highlight=False)
    console.print(f"Temporal UI  {settings.temporal.ui_url}", highlight=False)
    if settings.pusher.app_id:
        console.print(f"Pusher       {_pusher_url(settings)}", highlight=False)
    if detach or not started:
        return 0
    console.print("Press Ctrl-C to stop the started components.")
    try:
        await local.watch(started, report_exit)
    finally:
        await local.down(started)
    return 0


def report_ready(name: str, seconds: float) -> None:
    """Report a component that was started."""
    console.print(f"[green]✓[/] {name:<9} ready after {seconds:.1f} s", highlight=False)


def report_exit(item: Status) -> None:
    """Report a component that died."""
    console.print(f"[bold red]✗[/] {item.name} died; see its log {item.log}", soft_wrap=True)


def _table(statuses: list[Status]) -> Table:
    table = Table("component", "state", "pid", "port", "log")
    for item in statuses:
        state = f"[{STYLES[item.state]}]{item.state}[/]"
        table.add_row(item.name, state, str(item.pid or ""), str(item.port or ""), item.log.name)
    return table


def _pusher(settings: Settings) -> dict[str, Any]:
    secret = settings.pusher.secret
    return {
        "pusher_url": _pusher_url(settings),
        "pusher_app_id": settings.pusher.app_id,
        "pusher_key": settings.pusher.key,
        "pusher_secret": secret.get_secret_value() if secret else None,
    }


def _pusher_url(settings: Settings) -> str:
    pusher = settings.pusher
    return f"{'https' if pusher.tls else 'http'}://{pusher.host}:{pusher.port}"


def _description(settings: Settings, local: LocalStack) -> dict[str, Any]:
    secret_key, token = settings.s3.secret_key, settings.web.auth_token
    folder = local.home.data_dir
    return {
        "amqp_url": settings.amqp.url.get_secret_value(),
        "database_url": settings.database.url.get_secret_value(),
        "temporal_address": settings.temporal.address,
        "temporal_namespace": settings.temporal.namespace,
        "temporal_ui_url": settings.temporal.ui_url,
        "s3_endpoint": settings.s3.endpoint,
        "s3_access_key": settings.s3.access_key,
        "s3_secret_key": secret_key.get_secret_value() if secret_key else None,
        "s3_bucket": settings.s3.bucket,
        "web_url": settings.web.url,
        "auth_token": token.get_secret_value() if token else None,
        **(_pusher(settings) if settings.pusher.app_id else {}),
        "jwt_private_key_file": str(folder / "jwt_private.pem"),
        "jwt_public_key_file": str(folder / "jwt_public.pem"),
        "rabbitmq_management_url": local.home.management_url,
        "data_dir": str(folder),
        "pids": {item.name: item.pid for item in local.status()},
    }
