"""Runs the shipper against a web service, and reads what arrived."""

import asyncio
import os
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg

from tests.support.http_parts import runner_token
from tests.support.parts import stored_content
from tests.support.processes import LOGFLUME
from tests.support.waiting import until


@dataclass
class Done:
    """A command that ended."""

    code: int
    out: bytes
    err: str


@dataclass
class Shipper:
    """Runs `logflume` as a job outside does: it knows an address and a token, nothing else."""

    url: str
    job_id: int
    stack: Path
    folder: Path
    settings: dict[str, str] = field(default_factory=dict)

    @property
    def spool(self) -> Path:
        """The spool of the job."""
        return self.folder / str(self.job_id)

    def environment(self) -> dict[str, str]:
        """The environment of a job."""
        return {
            "PATH": os.environ["PATH"],
            "LOGFLUME_WEB__URL": self.url,
            "LOGFLUME_SHIP__TOKEN": runner_token(self.stack, self.job_id),
            "LOGFLUME_SHIP__SPOOL_DIR": str(self.folder),
            "LOGFLUME_SHIP__GIVE_UP_SECONDS": "30",
            **self.settings,
        }

    async def begin(self, *arguments: str, **options: Any) -> asyncio.subprocess.Process:
        """Start `logflume` with pipes."""
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), asyncio.subprocess.PIPE)
        given: dict[str, Any] = pipes | options
        return await asyncio.create_subprocess_exec(
            LOGFLUME, *arguments, env=self.environment(), **given
        )

    async def run(self, *arguments: str, stdin: bytes = b"") -> Done:
        """Run `logflume` until it ends."""
        process = await self.begin(*arguments)
        out, err = await asyncio.wait_for(process.communicate(stdin), 60)
        assert process.returncode is not None
        return Done(process.returncode, out, err.decode())


async def until_final(pool: asyncpg.Pool, job_id: int) -> bytes:
    """Wait until a drain has stored a final part and all before it; returns the log's content."""
    query = (
        "SELECT count(DISTINCT number) = max(number) + 1 AND bool_or(final) "
        "FROM log_parts JOIN logs ON logs.id = log_id WHERE job_id = $1"
    )

    async def is_stored() -> bool:
        return bool(await pool.fetchval(query, job_id))

    await until(is_stored)
    return await stored_content(pool, job_id)


async def until_sent(shipper: Shipper, size: int) -> None:
    """Wait until so many bytes in the spool are confirmed."""

    async def is_sent() -> bool:
        path = shipper.spool / "sent"
        return path.exists() and int.from_bytes(path.read_bytes()[8:16], "little") >= size

    await until(is_sent)


async def fixed_boundary(shipper: Shipper) -> bool:
    """Whether a part that is not confirmed has its boundary."""
    number = int.from_bytes((shipper.spool / "sent").read_bytes()[:8], "little")
    parts = (shipper.spool / "parts").read_bytes()
    return any(parts[number * 8 : number * 8 + 8])


async def has_size(shipper: Shipper, size: int) -> bool:
    """Whether so many bytes are in the spool, or will be once no secret can begin in the last."""
    if not (shipper.spool / "meta").exists():
        return False
    return sum(path.stat().st_size for path in shipper.spool.glob("[0-9]*")) >= size


async def is_after(second: int) -> bool:
    """Whether this second is over."""
    return time.time() >= second + 1


@asynccontextmanager
async def refusing(url: str, *responses: str) -> AsyncIterator[str]:
    """A proxy before a web; the first requests get these responses, such as `503 Busy`."""
    left = list(responses)
    to = urlsplit(url)

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            match = re.search(rb"content-length: (\d+)", head.lower())
            body = await reader.readexactly(int(match[1]) if match else 0)
            if left and (response := left.pop(0)) != "reset":
                end = "\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                writer.write(f"HTTP/1.1 {response}{end}".encode())
            elif not left:
                from_web, to_web = await asyncio.open_connection(to.hostname, to.port)
                to_web.write(head.replace(b"\r\n", b"\r\nConnection: close\r\n", 1) + body)
                writer.write(await from_web.read())
                to_web.close()
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
