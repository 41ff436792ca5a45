"""A minimal reader of server-sent events."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import httpx


class Event(NamedTuple):
    name: str
    id: str
    data: dict[str, Any]

    @property
    def content(self) -> bytes:
        text = self.data["content"]
        return base64.b64decode(text) if "encoding" in self.data else text.encode()


class Reader:
    """Reads one stream; `last_id` is where the next one resumes."""

    def __init__(self, response: httpx.Response) -> None:
        self._lines = response.aiter_lines()
        self.last_id = ""
        self.comments = 0

    async def next(self, seconds: float = 20) -> Event:
        async with asyncio.timeout(seconds):
            fields: dict[str, str] = {}
            async for line in self._lines:
                if line.startswith(":"):
                    self.comments += 1
                elif line:
                    name, _, value = line.partition(": ")
                    fields[name] = value
                elif "event" in fields:
                    self.last_id = fields.get("id", self.last_id)
                    return Event(fields["event"], fields.get("id", ""), json.loads(fields["data"]))
                else:
                    fields = {}
        raise EOFError

    async def parts(self, count: int) -> list[tuple[int, bytes]]:
        """The next `count` events, which must be parts."""
        events = [await self.next() for _ in range(count)]
        assert [event.name for event in events] == ["part"] * count
        return [(event.data["number"], event.content) for event in events]


@asynccontextmanager
async def reading(
    web: httpx.AsyncClient, job_id: int, after: str = "", query: str = "?encoding=base64"
) -> AsyncIterator[Reader]:
    headers = {"Last-Event-ID": after} if after else {}
    async with web.stream("GET", f"/logs/{job_id}/stream{query}", headers=headers) as response:
        assert response.status_code == 200, await response.aread()
        yield Reader(response)
