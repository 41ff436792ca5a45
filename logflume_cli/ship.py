"""`logflume ship`: ships standard input, or a growing file, as the log of a job."""

import os
import signal
import sys
from pathlib import Path

import click

from logflume.ship.follow import Follower
from logflume.ship.relay import READ_BYTES, StandardOutput
from logflume.ship.shipment import Shipment, start
from logflume_cli.shipping import shipping_options


@click.command()
@shipping_options
@click.option(
    "--follow",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Ship this file while it grows, until SIGTERM or SIGINT; it may be rotated or truncated.",
)
def ship(
    job_id: int | None,
    names: tuple[str, ...],
    mask_file: Path | None,
    follow: Path | None,
    *,
    strict: bool,
) -> None:
    """Copy standard input to standard output, and ship it as the log of a job.

    With an empty standard input it sends what an earlier `logflume run` or `logflume ship` of the
    same job left in the spool.
    """
    shipment = start(job_id, names, mask_file)
    if follow is None:
        _copy(shipment)
    elif shipment:
        Follower(follow.absolute(), shipment).run()
    is_complete = shipment.finish() if shipment else False
    sys.exit(int((strict or follow is not None) and not is_complete))


def _copy(shipment: Shipment | None) -> None:
    output = StandardOutput()
    # The end of the input ends the log, also when a terminal interrupts all of a pipeline.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while data := os.read(0, READ_BYTES):
        if shipment:
            shipment.append(data)
        output.write(data)
