"""Files and nothing else, over the server that the web runs on: the least an answer can cost."""

import asyncio
import socket
from pathlib import Path
from typing import Any

import uvicorn

from bench.apart import Say

SLICE_BYTES = 1024 * 1024  # as the web sends


async def serve_files(say: Say, folder: Path) -> None:
    """Serve a folder's files with the web's own options of uvicorn; says the port."""

    async def app(scope: dict[str, Any], _: object, send: Any) -> None:
        path = folder / Path(scope["path"]).name
        length = str(path.stat().st_size).encode()
        headers = [(b"content-length", length)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        with path.open("rb") as file:
            while piece := file.read(SLICE_BYTES):
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    config = uvicorn.Config(
        app,
        http="httptools",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
    )
    listening = socket.create_server(("127.0.0.1", 0))
    serving = asyncio.create_task(uvicorn.Server(config).serve(sockets=[listening]))
    say(listening.getsockname()[1])
    await serving
