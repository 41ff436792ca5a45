"""`logflume run`: runs a command and ships its output as the log of a job."""

import sys
from pathlib import Path

import click

from logflume.ship.relay import StandardOutput, run_command
from logflume.ship.shipment import start
from logflume_cli.shipping import shipping_options


@click.command(context_settings={"ignore_unknown_options": True})
@shipping_options
@click.option("--no-tty", is_flag=True, help="Run the command with pipes, without a terminal.")
@click.argument("command", metavar="COMMAND...", nargs=-1, required=True, type=click.UNPROCESSED)
def run(  # noqa: PLR0913 - its options
    job_id: int | None,
    names: tuple[str, ...],
    mask_file: Path | None,
    command: tuple[str, ...],
    *,
    strict: bool,
    no_tty: bool,
) -> None:
    """Run COMMAND, show its output, and ship that as the log of a job.

    Signals are passed on to the command. The exit code is the command's: 128 + n if signal n ended
    it, 127 if it does not exist. The network never delays the command: output is stored in a spool
    on disk until it is confirmed. Standard output and error are one stream.

    LOGFLUME_WEB__URL and LOGFLUME_SHIP__TOKEN say where to send the log; docs/shipping.md has
    recipes.
    """
    shipment = start(job_id, names, mask_file)
    output = StandardOutput()

    def on_output(data: bytes) -> None:
        if shipment:
            shipment.append(data)
        output.write(data)

    code = run_command(list(command), on_output, has_terminal=not no_tty)
    is_complete = shipment.finish() if shipment else False
    sys.exit(code or int(strict and not is_complete))
