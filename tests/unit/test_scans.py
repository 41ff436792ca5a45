"""Scans of logs: shared, stopped, limited in time, and fair to links and addresses."""

import asyncio
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest
from litestar.exceptions import HTTPException

from web import scans
from web.scans import RUNNING, SCANS, Scans

LINK, ADDRESS = int(SCANS * scans.LINK_SHARE), int(SCANS * scans.ADDRESS_SHARE)


class Reader:
    """A request, and a scan that runs until it is released."""

    def __init__(self, address: str = "192.0.2.1", link: str | None = None) -> None:
        self.client = SimpleNamespace(host=address)
        self.query_params = {"share": link} if link else {}
        self.left, self.released = asyncio.Event(), asyncio.Event()
        self.began = self.stopped = 0

    async def receive(self):
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def scan(self):
        self.began += 1
        try:
            await self.released.wait()
        finally:
            self.stopped += 1
        return "found"


async def settle() -> None:
    """Let all tasks run until they wait."""
    for _ in range(20):
        await asyncio.sleep(0)


async def started(all_scans: Scans, *readers: Any) -> list[asyncio.Task[str]]:
    """Start a scan for each reader."""
    tasks = [asyncio.create_task(all_scans.run(one, id(one), one.scan)) for one in readers]
    await settle()
    return tasks


async def finish(*tasks: asyncio.Task[str]) -> None:
    for task in tasks:
        task.cancel()
        with suppress(asyncio.CancelledError, HTTPException):
            await task


async def test_a_scan_runs_once_for_all_its_readers_and_until_the_last_one_left():
    all_scans, first = Scans(), Reader()
    readers: list[Any] = [first, *(Reader() for _ in range(39))]
    tasks = [asyncio.create_task(all_scans.run(one, "log", first.scan)) for one in readers]
    await settle()
    for reader in readers[:39]:
        reader.left.set()
    await settle()
    assert (first.began, first.stopped) == (1, 0)
    first.released.set()
    assert await tasks[39] == "found"
    for task in tasks[:39]:
        with pytest.raises(HTTPException, match="left"):
            await task
    (alone,) = await started(all_scans, reader := Reader())
    reader.left.set()
    with pytest.raises(HTTPException, match="left"):
        await alone
    await settle()
    assert (reader.began, reader.stopped) == (1, 1)


async def test_a_scan_has_a_time_limit(monkeypatch):
    monkeypatch.setattr(scans, "SECONDS", 0.01)
    (task,) = await started(Scans(), reader := Reader())
    with pytest.raises(HTTPException, match="too large") as caught:
        await task
    assert (caught.value.status_code, reader.stopped) == (503, 1)


@pytest.mark.parametrize(
    ("fields", "running", "accepted"),
    [
        ({"link": "a"}, int(RUNNING * scans.LINK_SHARE), LINK),
        ({}, int(RUNNING * scans.ADDRESS_SHARE), ADDRESS),
    ],
    ids=["link", "address"],
)
async def test_a_link_or_address_leaves_room_for_others(fields, running, accepted):
    all_scans = Scans()
    readers = [Reader(**fields) for _ in range(SCANS + 1)]
    tasks = await started(all_scans, *readers)
    assert sum(reader.began for reader in readers) == running
    assert sum(task.done() for task in tasks) == len(readers) - accepted
    other = Reader(link="b") if fields else Reader("192.0.2.2")
    (of_other,) = await started(all_scans, other)
    other.released.set()
    assert await of_other == "found"
    readers[0].released.set()
    await settle()
    assert sum(reader.began for reader in readers) == running + 1
    await finish(*tasks)


async def test_all_scans_together_are_limited():
    readers = [Reader(f"192.0.2.{n}") for n in range(SCANS + 1)]
    tasks = await started(Scans(), *readers)
    assert sum(reader.began for reader in readers) == RUNNING
    with pytest.raises(HTTPException, match="too many"):
        await tasks[-1]
    await finish(*tasks)
