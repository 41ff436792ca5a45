"""The worker, counting its requests to the archive: `python -m bench.counting_worker FILE`."""

import os
import sys

import boto3

from logflume_cli.worker import worker


def main(path: str) -> None:
    """Append each request's operation to the file, one per line."""
    notes = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def note(event_name: str, **_: object) -> None:
        os.write(notes, event_name.rpartition(".")[2].encode() + b"\n")

    # Clients inherit the default session's event handlers.
    boto3.setup_default_session()
    assert boto3.DEFAULT_SESSION  # noqa: S101 - just made
    boto3.DEFAULT_SESSION.events.register("before-send.s3", note)
    worker.main([])


if __name__ == "__main__":
    main(sys.argv[1])
