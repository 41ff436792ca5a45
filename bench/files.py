"""Files and nothing else, by the framework and the server that the web runs on."""

import asyncio
import socket
from pathlib import Path

import uvicorn
from litestar import Litestar
from litestar.static_files import create_static_files_router

from bench.subprocess_worker import Say


async def serve_files(say: Say, folder: Path) -> None:
    """Serve a folder's files with the web's own options of uvicorn; says the port."""
    app = Litestar(
        [create_static_files_router("/", [folder])], openapi_config=None, logging_config=None
    )
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
