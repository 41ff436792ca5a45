"""Runs work in a subprocess, so that measuring takes little CPU from what is measured."""

import asyncio
import multiprocessing
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from multiprocessing.connection import Connection
from typing import Any

import uvloop

SPAWN = multiprocessing.get_context("spawn")

Send = Callable[[Any], None]
Work = Callable[..., Coroutine[Any, Any, None]]


@asynccontextmanager
async def subprocess_worker(
    work: Work, *args: object
) -> AsyncIterator[Callable[[], Awaitable[Any]]]:
    """Run `work(send, *args)` in a subprocess for the duration of the block.

    Yields a function that waits for the next object sent; EOFError if the subprocess exited.
    """
    receiver, sender = SPAWN.Pipe(duplex=False)
    process = SPAWN.Process(target=_run, args=(sender, work, args), daemon=True)
    process.start()
    sender.close()
    try:
        yield lambda: asyncio.to_thread(receiver.recv)
    finally:
        process.terminate()
        await asyncio.to_thread(process.join)
        receiver.close()


def _run(sender: Connection, work: Work, args: tuple[object, ...]) -> None:
    uvloop.run(work(sender.send, *args))
