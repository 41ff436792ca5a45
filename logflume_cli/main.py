"""The root of the command line; every command is a module of its own, loaded when it is called."""

import importlib
import keyword
import os
import sys
from typing import NoReturn

import click

from logflume.errors import ComponentError, LogflumeError

# Where each command lives: importing only the one that is called keeps `--help` quick.
COMMANDS = {
    "backfill": ("logflume_cli.backfill", "Bring many logs to their ends again."),
    "config": ("logflume_cli.config", "Print every setting, secrets hidden."),
    "db": ("logflume_cli.db", "Deploy, verify or revert the database schema."),
    "doctor": ("logflume_cli.doctor", "Check every component and setting, and say what to do."),
    "drain": ("logflume_cli.drain", "Take parts from RabbitMQ into Postgres."),
    "hold": ("logflume_cli.hold", "Keep a log's text, whatever else would delete it."),
    "import": ("logflume_cli.import_", "Take over the logs of another service."),
    "maintenance": ("logflume_cli.maintenance", "Keep everyone away from parts for a while."),
    "publish": ("logflume_cli.publish", "Play files as CI jobs, in a runner's wire format."),
    "reconcile": (
        "logflume_cli.reconcile.command",
        "Compare database, archive and workflows, as after a restore.",
    ),
    "rejected": (
        "logflume_cli.rejected",
        "Look at messages that broke the contract, or send them on.",
    ),
    "replay": (
        "logflume_cli.replay",
        "Replay workflow histories on the code that is installed here.",
    ),
    "retention": (
        "logflume_cli.retention",
        "Show what retention would delete, and rules for the store.",
    ),
    "schedules": ("logflume_cli.schedules", "Set up what Temporal runs again and again."),
    "share": ("logflume_cli.share", "Print a link that opens one log, for reading, for a while."),
    "show": ("logflume_cli.show", "Tell where a job's log is in its life."),
    "stack": ("logflume_cli.stack", "Start, stop and look at the local stack."),
    "web": ("logflume_cli.web", "Serve the HTTP API."),
    "worker": ("logflume_cli.worker", "Run the workflows and their activities."),
}


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(
        self,
        ctx: click.Context,  # noqa: ARG002
        cmd_name: str,
    ) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        try:
            module = importlib.import_module(COMMANDS[cmd_name][0])
        except ModuleNotFoundError as error:
            raise ComponentError(
                f"{cmd_name} needs the Python package {error.name}: run bin/setup, "
                "or install logflume[stack]"
            ) from error
        # `import` is a word of Python's own.
        name = f"{cmd_name}_" if keyword.iskeyword(cmd_name) else cmd_name
        command: click.Command = getattr(module, name)
        return command

    def format_commands(
        self,
        ctx: click.Context,  # noqa: ARG002
        formatter: click.HelpFormatter,
    ) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.command(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="logflume")
def root() -> None:
    """Carry the logs of CI jobs from the runners to the readers and to the archive.

    New here? `logflume stack up` starts everything on this machine, `logflume publish FILE` plays
    a file as a CI job, and `logflume show JOB_ID` tells where its log is.
    """


def main() -> None:
    """Run a command; an error made on purpose is one line on standard error and exit code 1."""
    try:
        root()
    except LogflumeError as error:
        click.echo(f"logflume: {error}", err=True)
        _leave(1)
    except SystemExit as ended:
        if ended.code is None or isinstance(ended.code, int):
            _leave(ended.code or 0)
        raise


def _leave(code: int) -> NoReturn:
    """End the process at once, without taking the interpreter apart.

    Threads of Temporal's library may still hand over results then, and one command in five died of
    it: https://github.com/temporalio/sdk-python/issues/300
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
