"""`logflume web`: assembles and runs the HTTP service."""

import asyncio
import socket
import ssl
from contextlib import AsyncExitStack
from typing import Any

import asyncpg
import click
import structlog

from db.connect import check_schema, close_pool, open_pool
from logflume import amqp
from logflume.amqp import Publisher
from logflume.archive.store import Archive
from logflume.errors import ComponentError, SettingsError
from logflume.observability.server import metrics_server
from logflume.settings import Settings
from logflume.settings.stages import WebSettings
from logflume_cli.services import lazy_workflows, on_stop, run
from web.app import make_app
from web.auth import Access
from web.health import dependencies
from web.lifecycle import SIGNAL_SECONDS
from web.server import Server
from web.services import Services
from web.streams.hub import Hub
from workflows.client.signaller import Signaller

log = structlog.get_logger()

# Concurrent reads of the archive, each of one slice.
ARCHIVE_THREADS = 8
SIGNALS_IN_FLIGHT = 16


@click.command()
def web() -> None:
    """Serve the HTTP API and the log pages."""
    run("web", _web)


async def _web(settings: Settings) -> None:
    async with AsyncExitStack() as stack:
        listener = stack.enter_context(_listen(settings.web))
        pool = await open_pool(settings.database, name="logflume web")
        stack.push_async_callback(close_pool, pool)
        await check_schema(pool, "logflume_web")
        services = await web_services(settings, pool, stack)
        proxies = [str(network) for network in settings.web.trusted_proxies]
        server = Server(make_app(services), trusted_proxies=proxies, **_tls(settings.web))

        def stop() -> None:
            # Before uvicorn waits for open requests: streams do not end by themselves.
            services.hub.close()
            server.should_exit = True

        on_stop(stop)
        shown = metrics_server("web", settings.telemetry, dependencies(services))
        await stack.enter_async_context(shown)
        log.info("web_started", host=settings.web.host, port=settings.web.port)
        await server.serve(sockets=[listener])
    log.info("web_stopped")


async def web_services(settings: Settings, pool: asyncpg.Pool, stack: AsyncExitStack) -> Services:
    """Open the connections of the web; `stack` closes them.

    Raises:
        SettingsError: `LOGFLUME_WEB__JWT_PUBLIC_KEY` is not a usable RSA public key.
    """
    access = Access(settings.web)
    # Lazy: logs can be read while Temporal is down.
    workflows = await lazy_workflows(settings)
    publisher = Publisher(settings.amqp.url.get_secret_value(), "logflume web", amqp.declare)
    stack.push_async_callback(publisher.close)
    signaller = Signaller(
        workflows, in_flight=SIGNALS_IN_FLIGHT, max_backoff=30, timeout=SIGNAL_SECONDS
    )
    stack.push_async_callback(signaller.close, 0)
    hub = Hub(pool, settings.database)
    listener = asyncio.create_task(hub.run())
    stack.callback(listener.cancel)
    archive = Archive(settings.s3, ARCHIVE_THREADS)
    return Services(settings, access, pool, archive, workflows, publisher, hub, signaller)


def _tls(settings: WebSettings) -> dict[str, Any]:
    if settings.tls_cert_file is None or settings.tls_key_file is None:
        return {}
    files = (settings.tls_cert_file, settings.tls_key_file)
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(*files)
    except OSError as error:
        raise SettingsError(
            f"LOGFLUME_WEB__TLS_CERT_FILE and TLS_KEY_FILE: {files[0]} and {files[1]} are not a "
            f"certificate and its key: {error.strerror or error}"
        ) from error
    return {"ssl_certfile": files[0], "ssl_keyfile": files[1]}


def _listen(settings: WebSettings) -> socket.socket:
    address = (settings.host, settings.port)
    try:
        return socket.create_server(address, reuse_port=False)
    except OSError as error:
        raise ComponentError(
            f"cannot listen on {settings.host} port {settings.port}: {error.strerror}; "
            "stop the process that uses it, or set LOGFLUME_WEB__HOST and LOGFLUME_WEB__PORT"
        ) from error
