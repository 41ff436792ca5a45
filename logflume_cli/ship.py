"""`logflume ship`: ships standard input as the log of a job."""

import os
import signal
import sys

import click

from logflume.ship.relay import READ_BYTES, StandardOutput
from logflume.ship.shipment import start
from logflume_cli.shipping import job_id_option, strict_option


@click.command()
@job_id_option
@strict_option
def ship(job_id: int | None, *, strict: bool) -> None:
    """Copy standard input to standard output, and ship it as the log of a job.

    With an empty standard input it sends what an earlier `logflume run` or `logflume ship` of the
    same job left in the spool.
    """
    shipment = start(job_id)
    output = StandardOutput()
    # The end of the input ends the log, also when a terminal interrupts all of a pipeline.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while data := os.read(0, READ_BYTES):
        if shipment:
            shipment.append(data)
        output.write(data)
    is_complete = shipment.finish() if shipment else False
    sys.exit(int(strict and not is_complete))
