"""A real web process, attacked by one client while another one reads."""

import asyncio
import resource
from contextlib import AsyncExitStack, suppress
from datetime import timedelta
from ipaddress import ip_network
from types import SimpleNamespace

import httpx
import psutil
import pytest
from pydantic import SecretStr

from tests.support.metrics import parsed
from tests.support.parts import part, store_parts
from tests.support.processes import LOGFLUME, running
from tests.support.waiting import until
from web.auth import sign_link

TOKEN, SECRET = "token-of-the-callers", "secret-that-signs-links-to-one-log"
MIB = 1024 * 1024
BODY = 4 * MIB
STREAM = b"GET /logs/%d/stream HTTP/1.1\r\nHost: a\r\nAuthorization: token %b\r\n\r\n"
# Unauthenticated: the signature is compared once the body, of which most is missing, is complete.
MULTI = (
    b"POST /log-parts/multi HTTP/1.1\r\nHost: a\r\nAuthorization: token sig:x\r\n"
    b"X-Forwarded-For: %%b\r\nContent-Length: %d\r\n\r\n[" % BODY
)
WAITING = """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND wait_event_type = 'Lock'
"""
USUAL_FILES = 1024


@pytest.fixture
async def web(settings, tmp_path, unused_tcp_port_factory):
    """A client of a web process that was started with the usual limit of open files."""
    port, metrics_port = unused_tcp_port_factory(), unused_tcp_port_factory()
    changed = {
        "auth_token": SecretStr(TOKEN),
        "link_secret": SecretStr(SECRET),
        "port": port,
        "max_body_bytes": BODY,
        "trusted_proxies": (ip_network("127.0.0.1"),),
    }
    settings = settings.model_copy(
        update={
            "web": settings.web.model_copy(update=changed),
            "telemetry": settings.telemetry.model_copy(update={"port": metrics_port}),
        }
    )
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (USUAL_FILES, hard))
    async with AsyncExitStack() as stack:
        command = (LOGFLUME, "web")
        started = running(settings, tmp_path / "web", *command, started="web_started")
        process = await stack.enter_async_context(started)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 4 * USUAL_FILES), hard))
        headers = {"Authorization": f"token {TOKEN}"}
        address = f"http://127.0.0.1:{port}"
        client = httpx.AsyncClient(base_url=address, headers=headers, timeout=60)
        await stack.enter_async_context(client)
        yield SimpleNamespace(
            client=client,
            port=port,
            link_settings=settings.web,
            metrics=f"http://127.0.0.1:{metrics_port}/metrics",
            process=psutil.Process(process.pid),
            log=tmp_path / "web.log",
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def opened(stack: AsyncExitStack, web, sent: bytes = b"") -> asyncio.StreamReader:
    """Connect and send; the stack closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", web.port)
    stack.callback(writer.close)
    writer.write(sent)
    return reader


async def refused(web) -> dict[tuple[str, ...], float]:
    """The metrics of the web, which are only on their own port."""
    assert (await web.client.get("/metrics")).status_code == 404
    return parsed((await web.client.get(web.metrics)).text)


async def test_a_thousand_streams_opened_at_once_are_accepted(web, pool, job_id):
    await store_parts(pool, [part(job_id, 0, b"text")])
    async with AsyncExitStack() as stack:
        sent = STREAM % (job_id, TOKEN.encode())
        readers = await asyncio.gather(*[opened(stack, web, sent) for _ in range(1000)])
        heads = await asyncio.gather(*[reader.readuntil(b"text") for reader in readers])
        assert [head for head in heads if not head.startswith(b"HTTP/1.1 200 ")] == []


async def test_idle_connections_and_malformed_requests_stop_nothing(web):
    async with AsyncExitStack() as stack:
        idle = [await opened(stack, web) for _ in range(USUAL_FILES + 76)]
        assert (await web.client.get("/health/live")).status_code == 200
        assert web.process.num_fds() > len(idle)
        for _ in range(100):
            reader = await opened(stack, web, b"nonsense\r\n\r\n")
            assert (await reader.read()).startswith(b"HTTP/1.1 400 ")
        await asyncio.gather(*[reader.read() for reader in idle])  # closed after 10 s
    assert (await refused(web))["logflume_web_refused_total", "bad_request"] == 100
    assert len(web.log.read_text().splitlines()) == 1  # web_started


async def test_endless_heads_and_many_bodies_cost_little(web, job_id):
    memory = web.process.memory_info().rss
    for header in (b"x" * MIB, b"a: b\r\n" * (MIB // 6)):
        _, writer = await asyncio.open_connection("127.0.0.1", web.port)
        writer.write(b"GET / HTTP/1.1\r\nx: ")
        with suppress(ConnectionError):
            for _ in range(32):
                writer.write(header)
                await writer.drain()
        writer.close()
    assert (await web.client.get("/health/live")).status_code == 200
    assert web.process.memory_info().rss < memory + 16 * MIB
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    many = await web.client.post("/pusher/auth", content=b"a&" * 100_000, headers=form)
    assert many.status_code == 413
    # One at a time from one address.
    content = b"x" * BODY
    paths = [f"/logs/{job_id + n}?removed_by=1" for n in range(20)]
    responses = await asyncio.gather(*[web.client.put(path, content=content) for path in paths])
    assert {response.status_code for response in responses} == {200}
    async with AsyncExitStack() as stack:
        for _ in range(2):  # all that one address can hold, and what waits for it
            await opened(stack, web, MULTI % b"198.51.100.1")
        assert (await web.client.put(paths[0], content=content)).status_code == 200


async def test_searches_and_outlines_are_shared_stopped_and_fair(web, pool, job_id, move_to):
    await move_to("database", [b"found\n"])
    hanging = job_id + 1
    await store_parts(pool, [part(hanging, 0, b"text")])
    link = sign_link(web.link_settings, hanging, timedelta(hours=1))

    async def waiting() -> int:
        return int(await pool.fetchval(WAITING))

    async with pool.acquire() as connection, connection.transaction():
        await connection.execute("LOCK TABLE log_parts IN ACCESS EXCLUSIVE MODE")
        async with AsyncExitStack() as leaving:
            for n in range(10):
                path = f"/logs/{hanging}/search?q={n}&share={link}".encode()
                await opened(leaving, web, b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n" % path)
            path = f"/logs/{hanging}/outline?share={link}".encode()
            for _ in range(40):
                await opened(leaving, web, b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n" % path)

            async def has_begun() -> bool:
                return await waiting() == 2  # one search and one outline

            await until(has_begun)
            response = await web.client.get(f"/logs/{job_id}/search?q=found")
            assert response.json()["lines"] == [0]
            assert (await web.client.get(f"/logs/{job_id}/outline")).json()["lines"] == 1
            assert await waiting() == 2

        async def has_stopped() -> bool:
            return await waiting() == 0

        await until(has_stopped)
