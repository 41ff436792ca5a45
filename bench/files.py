"""Serves static files with the framework and server of our web service, as a reference."""

import asyncio
import socket
from pathlib import Path

import uvicorn
from litestar import Litestar
from litestar.static_files import create_static_files_router

from bench.subprocess_worker import Send


async def serve_files(send: Send, folder: Path) -> None:
    """Serve a folder's files with our uvicorn options; sends the port."""
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
    send(listening.getsockname()[1])
    await serving
