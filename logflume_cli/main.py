"""The root command `logflume`; each subcommand is a module that is imported when it is called."""

import importlib
import os
import signal
import sys
from typing import NoReturn

import click
from click.shell_completion import CompletionItem

from logflume.errors import ComponentError, LogflumeError
from logflume_cli.terminal import echo

# Module and help of each command; only the called one is imported, so `--help` is fast.
COMMANDS = {
    "backfill": ("backfill", "Run aggregation and archiving again for many logs."),
    "config": ("config", "Print all settings, with secrets hidden."),
    "db": ("db", "Deploy, verify or revert the database schema."),
    "doctor": ("doctor", "Check settings and servers, and suggest fixes."),
    "drain": ("drain", "Consume parts from RabbitMQ and commit them to Postgres."),
    "hold": ("hold", "Place or remove legal holds on logs."),
    "import": ("import_", "Import the logs of another service."),
    "list": ("list", "List recent logs."),
    "logs": ("logs", "Print the log of a job, wherever it is stored."),
    "maintenance": ("maintenance", "Pause all reads and writes of log parts for maintenance."),
    "publish": ("publish", "Publish files as the output of CI jobs."),
    "reconcile": (
        "reconcile.command",
        "Compare database, archive and workflows, e.g. after a restore.",
    ),
    "rejected": ("rejected", "List, requeue or drop dead-lettered messages; resume drains."),
    "replay": ("replay", "Replay workflow histories against the installed code."),
    "retention": ("retention", "Preview what retention would delete; print bucket rules."),
    "run": ("run", "Run a command and ship its output as the log of a job."),
    "schedules": ("schedules", "Create or update the Temporal schedules."),
    "share": ("share", "Print a signed, expiring link to one log."),
    "ship": ("ship", "Ship standard input as the log of a job."),
    "show": ("show", "Show the lifecycle state of a job's log."),
    "stack": ("stack", "Start, stop and inspect the local development stack."),
    "token": ("token", "Print a token with which a job stores its log."),
    "web": ("web", "Serve the HTTP API and the log pages."),
    "worker": ("worker", "Run workflows and their activities."),
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
            module = importlib.import_module(f"logflume_cli.{COMMANDS[cmd_name][0]}")
        except ModuleNotFoundError as error:
            raise ComponentError(
                f"{cmd_name} needs the Python package {error.name}: run bin/setup, "
                "or install logflume[server,stack]"
            ) from error
        # `import` is a Python keyword.
        name = f"{cmd_name}_" if hasattr(module, f"{cmd_name}_") else cmd_name
        command: click.Command = getattr(module, name)
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete names without importing every command."""
        names = [
            CompletionItem(name, help=text)
            for name, (_, text) in COMMANDS.items()
            if name.startswith(incomplete)
        ]
        return names + click.Command.shell_complete(self, ctx, incomplete)

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
    """Carry the logs of CI jobs from runners to readers and to the archive.

    To try it, run `logflume stack up` to start everything on this machine, `logflume publish FILE`
    to publish a file as a CI job, and `logflume show JOB_ID` to see the state of its log.
    """


def main() -> None:
    """Run a command; an error is one line on standard error: exit code 1, or 2 for bad input."""
    try:
        _exit(root(standalone_mode=False) or 0)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        _exit(2)
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx else "logflume"
        text = " ".join(error.format_message().split())
        echo(f"logflume: {text} See `{where} --help`.", err=True)
        _exit(2)
    except click.ClickException as error:
        error.show()
        _exit(1)
    except click.Abort:
        _exit(128 + signal.SIGINT)
    except LogflumeError as error:
        echo(f"logflume: {error}", err=True)
        _exit(1)
    except SystemExit as error:
        if error.code is None or isinstance(error.code, int):
            _exit(error.code or 0)
        raise


def _exit(code: int) -> NoReturn:
    """Exit at once, without finalizing the interpreter.

    Threads of the Temporal SDK may still deliver results during finalization, which crashed one
    command in five: https://github.com/temporalio/sdk-python/issues/300
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
