"""Work in a process of its own, so that what measures takes little from what is measured."""

import asyncio
import multiprocessing
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from multiprocessing.connection import Connection
from typing import Any

import uvloop

SPAWN = multiprocessing.get_context("spawn")

Say = Callable[[Any], None]
Work = Callable[..., Coroutine[Any, Any, None]]


@asynccontextmanager
async def apart(work: Work, *args: object) -> AsyncIterator[Callable[[], Awaitable[Any]]]:
    """Run `work(say, *args)` in a process of its own, until the block ends.

    Yields what waits for the next thing it says; EOFError where it ended before.
    """
    hears, says = SPAWN.Pipe(duplex=False)
    process = SPAWN.Process(target=_run, args=(says, work, args), daemon=True)
    process.start()
    says.close()
    try:
        yield lambda: asyncio.to_thread(hears.recv)
    finally:
        process.terminate()
        await asyncio.to_thread(process.join)
        hears.close()


def _run(says: Connection, work: Work, args: tuple[object, ...]) -> None:
    uvloop.run(work(says.send, *args))
